from h import *
import threading
st={}
def work(t):
    c=None
    for i in range(1100):
        if i%100==0:
            if c: c.close()
            c=cl(f'127.88.0.{1+t*40+i//100}')
        c.cookies.clear(); ck=c.get('/').headers['set-cookie'].split(';')[0]; c.cookies.clear()
        r=c.get('/v1/search',params={'q':'tokyo tower','limit':8},headers={'Cookie':ck}); st[r.status_code]=st.get(r.status_code,0)+1
a=earn(); t0=time.time(); ts=[threading.Thread(target=work,args=(t,)) for t in range(4)]; [t.start() for t in ts]; [t.join() for t in ts]; print(st,round(time.time()-t0,1))
b=settle(); print(delta(a,b)); a=b
cl('127.88.0.200').get('/v1/search',params={'q':'handbag'}); b=settle(); print('honest neighbour, handbag',delta(a,b)); a=b
cl('127.89.0.200').get('/v1/search',params={'q':'handbag'}); b=settle(); print('other network, handbag',delta(a,b))
for i in (22,34,37): e=adm.get(f'/v1/creators/{i}/earnings').json(); print(i,{x:e[x] for x in('accrued','payable','in_flight','paid','held')})
