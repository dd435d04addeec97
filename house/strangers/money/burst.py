from h import *
import threading
stop=[0]; st={}
def work(t):
    c=cl(f'127.91.0.{1+t}')
    for i in range(600):
        if i%100==99: c.close(); c=cl(f'127.91.0.{1+t*10+i//100}')
        c.cookies.clear(); ck=c.get('/').headers['set-cookie'].split(';')[0]; c.cookies.clear()
        r=c.get('/v1/search',params={'q':'backpack','limit':1},headers={'Cookie':ck}); st[r.status_code]=st.get(r.status_code,0)+1
print(adm.get('/v1/creators/18/earnings').json())
t0=time.time(); ts=[threading.Thread(target=work,args=(t,)) for t in range(4)]; [t.start() for t in ts]
for _ in range(45):
    time.sleep(1); e=adm.get('/v1/creators/18/earnings').json(); print(round(time.time()-t0),{x:e[x] for x in('accrued','payable','in_flight','paid')},(e['held'] or '')[:8],flush=True)
    if e['held'] and not any(t.is_alive() for t in ts): break
[t.join() for t in ts]; print(st)
