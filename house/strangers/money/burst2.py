from h import *
import threading
st={}
def work(t):
    c=cl(f'127.91.0.{101+t}')
    for i in range(250):
        if i%90==89: c.close(); c=cl(f'127.91.0.{110+t*10+i//90}')
        c.cookies.clear(); ck=c.get('/').headers['set-cookie'].split(';')[0]; c.cookies.clear()
        r=c.get('/v1/search',params={'q':'tokyo tower','limit':8},headers={'Cookie':ck}); st[r.status_code]=st.get(r.status_code,0)+1
t0=time.time(); ts=[threading.Thread(target=work,args=(t,)) for t in range(4)]; [t.start() for t in ts]
for _ in range(25):
    time.sleep(1); e=adm.get('/v1/creators/37/earnings').json(); print(round(time.time()-t0),{x:e[x] for x in('accrued','payable','in_flight','paid')},flush=True)
    if not any(t.is_alive() for t in ts) and _>12: break
print(st)
for p in adm.get('/v1/creators/37/payouts?limit=4').json()['payouts'][:4]: print(p['id'],p['amount_pix'],p['state'],p['planned_at'])
