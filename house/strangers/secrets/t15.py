from h import *
import httpx,time
# direct replica
d=httpx.Client(base_url='http://127.0.0.1:24500',timeout=20)
def burst(h,n=40):
    out=[]
    for i in range(n): out.append(d.get('/healthz' if 0 else '/v1/completions?q=pi',headers=h).headers.get('ratelimit'))
    return out[0],out[-1]
print('own',burst({})); print('own2',burst({}))
for h in [{'X-Forwarded-For':'9.9.9.9'},{'X-Real-IP':'9.9.9.9'},{'Forwarded':'for=9.9.9.9'},{'X-Pixr-Client':'9.9.9.9'},{'X-Pixr-Address':'9.9.9.9'},{'X-Client-Address':'9.9.9.9'}]:
    print(h,burst(h,10))
x=d.get('/v1/keys'); print(x.status_code)
x=d.get('/-/routes'); print(x.status_code,x.text[:200]); x=d.get('/-/healthz'); print(x.status_code,x.text[:200])
m=d.get('/metrics',headers={'X-Forwarded-For':'8.8.8.8'}).text
open('metrics.txt','w').write(m)
x=d.post('/v1/search',json={'text':'pie','x':1}); print(x.text[:200])
big=d.get('/v1/search',params={'q':'pie','limit':1},headers={'Host':'a\\b"<x>'}); print(big.status_code)
