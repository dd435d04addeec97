import json,httpx,sys
B='http://127.0.0.1:8001'
K={n:json.load(open(f'/tmp/stranger/secrets/key.{n}.json'))['key'] for n in ['search1','search2','ana-ing','bruno-ing','any-ing','cr-ana','cr-bruno','creator3','none-ing']}
K['admin']=open('/tmp/str-b/secrets/api_admin_key').read().strip(); K['none']=None
c=httpx.Client(base_url=B,timeout=30)
def r(m,p,k='none',**kw):
    h=dict(kw.pop('headers',{}) )
    if K[k]: h['Authorization']='Bearer '+K[k]
    return c.request(m,p,headers=h,**kw)
def show(x,n=500): print(x.request.method,x.request.url,x.status_code,{k:v for k,v in x.headers.items() if k not in('date','content-length')},x.text[:n]); print()
