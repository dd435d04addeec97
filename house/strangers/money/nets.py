# 40 networks of /24, up to 90 cookies each: 'cigarette' of evechidi(21)
from h import *
import threading
a=adm.get('/v1/creators/21/earnings').json(); print(a['accrued'],a['paid'],a['payable'])
st={}
def work(t):
    for n in range(t,40,4):
        c=cl(f'127.150.{n}.7')
        for i in range(90):
            c.cookies.clear(); ck=c.get('/').headers['set-cookie'].split(';')[0]; c.cookies.clear()
            r=c.get('/v1/search',params={'q':'cigarette','limit':1},headers={'Cookie':ck}); st[r.status_code]=st.get(r.status_code,0)+1
        c.close()
t0=time.time(); ts=[threading.Thread(target=work,args=(t,)) for t in range(4)]; [t.start() for t in ts]; [t.join() for t in ts]; print(st,time.time()-t0)
settle(); time.sleep(5); b=adm.get('/v1/creators/21/earnings').json(); print(b['accrued'],b['paid'],b['payable'],b['held'])
