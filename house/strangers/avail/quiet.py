import http.client, time, json, random, sys, socket
words="rhinoceros croissant tent joker accordion castle dog cat tiger rocket banana forest beach sea stripes horse pizza guitar trumpet violin whale shark".split()
out=open('/tmp/stranger/avail/quiet.log','a',buffering=1)
base={}
conn=None
def one(path, keep, hdr={}):
    global conn
    t=time.time()
    try:
        if keep:
            if conn is None: conn=http.client.HTTPConnection('127.0.0.1',8000,timeout=30,source_address=('127.0.0.200',0))
            c=conn
        else: c=http.client.HTTPConnection('127.0.0.1',8000,timeout=30,source_address=('127.0.0.200',0))
        c.request('GET',path,headers=hdr); r=c.getresponse(); b=r.read()
        if not keep: c.close()
        return r.status,(time.time()-t)*1000,b,dict((k.lower(),v) for k,v in r.getheaders())
    except Exception as e:
        if keep: 
            try: conn.close()
            except: pass
            conn=None
        return repr(e)[:80],(time.time()-t)*1000,b'',{}
n=0
while True:
    t0=time.time(); n+=1
    kind=['new','old','page','oldk','newk','stream','feed','compl'][n%8]
    from urllib.parse import quote
    w=random.sample(words,2)
    new='a %s and %d %s'%(w[0],random.randrange(10**9),w[1])
    old=['a rhinoceros','croissant','tent at sea'][n%3]
    p={'new':'/v1/search?q='+quote(new),'newk':'/v1/search?q='+quote(new),'old':'/v1/search?q='+quote(old),'oldk':'/v1/search?q='+quote(old),'page':'/','stream':'/v1/search/stream?q='+quote(old),'feed':'/v1/feed','compl':'/v1/completions?q=a'}[kind]
    st,ms,b,h=one(p,kind.endswith('k'))
    note=''
    if kind in('old','oldk') and st==200:
        try:
            ids=[m['segment_id'] for m in json.loads(b)['moments']]
            if old not in base: base[old]=ids
            elif base[old]!=ids: note+=' WRONG %s'%ids[:5]
        except Exception as e: note+=' BADJSON'
    if h.get('x-pixr-degraded'): note+=' degraded='+h['x-pixr-degraded']
    if st!=200: note+=' '+b[:160].decode('latin1').replace('\n',' ')+' '+h.get('content-type','')
    if ms>1000: note+=' SLOW'
    out.write('%s %s %s %.0f%s\n'%(time.strftime('%H:%M:%S'),kind,st,ms,note))
    time.sleep(max(0,1-(time.time()-t0)))
