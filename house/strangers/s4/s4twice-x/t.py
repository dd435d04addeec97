"""t.py creator_ids viewers [start] [extra]: searches as many viewers (addresses 127.x), filtered by creator"""
import sys,json,socket,threading,http.client,urllib.parse,os
cids=sys.argv[1].split(','); n=int(sys.argv[2]); start=int(sys.argv[3]) if len(sys.argv)>3 else 2
K=open('/srv/twice/.pixr/secrets/api_admin_key').read().strip()
def get(path,src='127.0.0.1',headers={}):
    c=http.client.HTTPConnection('127.0.0.1',8000,timeout=20,source_address=(src,0)); c.request('GET',path,headers=headers); r=c.getresponse(); b=r.read(); return r.status,r.headers,b
qs={}
f='/tmp/s4twice-x/qs.json'
if os.path.exists(f): qs=json.load(open(f))
for cid in cids:
    if cid in qs: continue
    s,h,b=get('/v1/videos?limit=50&creator='+cid,headers={'Authorization':'Bearer '+K})
    try: vs=json.loads(b)['videos']
    except Exception: print(s,b[:300]); raise
    import re
    L=[]
    for v in vs:
        for m in re.findall(r'(?:a|an|times|and|first) ([a-z]+(?: [a-z]+)?)(?= and| in| at| on|,|\.)',v.get('description') or ''): L.append('a '+m.replace('an ','').replace('a ',''))
        L.append(v['title'])
    qs[cid]=L
json.dump(qs,open(f,'w'))
tot=0
def go(i):
    global tot
    src='127.0.%d.%d'%((i//250),2+i%250)
    for cid in cids:
        for q in qs[cid]:
            s,h,b=get('/v1/search?limit=10&creator_id=%s&q=%s'%(cid,urllib.parse.quote(q)),src)
            if s==200: tot+=sum(m['relevance_ppm'] for m in json.loads(b)['moments'])
            else: print(s,b[:200])
for i in range(start,start+n): go(i)
print('relevance sum',tot,'=> gross max pix',tot/1000,{c:len(qs[c]) for c in cids})
