import httpx, json, time, random, os, base64, io, sys
B='http://127.0.0.1:8001'
A=open('/tmp/str-b/secrets/api_admin_key').read().strip()
AH={'Authorization':'Bearer '+A}
ana='A-KEY'
mal='A-KEY'
srch='A-KEY'
cre3='A-KEY'
def K(k): return {'Authorization':'Bearer '+k}
adm=httpx.Client(base_url=B,headers=AH,timeout=20)
def cl(addr,**kw):
    return httpx.Client(base_url=B,transport=httpx.HTTPTransport(local_address=addr),timeout=20,**kw)
_n=[int.from_bytes(os.urandom(2),'big')]
def fresh(**kw):
    _n[0]+=1
    n=_n[0]%64000
    return cl(f'127.{10+random.randrange(200)}.{n//250}.{1+n%250}',**kw)
def earn(ids=None):
    out={}
    if ids is None:
        ids=[int(c['id']) for c in adm.get('/v1/creators?limit=100').json()['creators']]
    for i in ids:
        r=adm.get(f'/v1/creators/{i}/earnings').json()
        out[i]=int(r.get('accrued',0))
    return out
def settle(prev=None,wait=1.2):
    time.sleep(wait); a=earn()
    while True:
        time.sleep(1.2); b=earn()
        if a==b: return b
        a=b
def delta(a,b): return {i:b[i]-a.get(i,0) for i in b if b[i]-a.get(i,0)}
def exp(moments):
    d={}
    for m in moments:
        if m.get('explain') and not m['explain']['above_cut']: continue
        d[int(m['creator_id'])]=d.get(int(m['creator_id']),0)+ m['relevance_ppm']*1000//10**6*9//10
    return d
def oracle(**body):
    body.setdefault('intent','typing'); body['explain']=True; body.setdefault('limit',100); body['relevance_min_ppm']=0
    r=adm.post('/v1/search',json=body); 
    if r.status_code!=200: raise Exception(r.text)
    return {m['segment_id']:m for m in r.json()['moments']}
