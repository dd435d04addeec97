from h import *
import threading
st={}
me=[c['id'] for c in adm.get('/v1/creators?limit=100').json()['creators'] if c['handle']=='evedupb'][0]; print(me)
r=fresh().get('/v1/search',params={'q':'maple leaf','creator_id':me,'intent':'typing','explain':'true'}).json(); print([m['relevance_ppm'] for m in r['moments'] if m['explain']['above_cut']])
cks=[]
c=cl('127.94.0.9')
def mint(t):
    c=cl(f'127.94.0.{60+t}')
    for i in range(100): c.cookies.clear(); cks.append(c.get('/').headers['set-cookie'].split(';')[0])
ts=[threading.Thread(target=mint,args=(t,)) for t in range(4)]; [t.start() for t in ts]; [t.join() for t in ts]
def work(t):
    c=cl(f'127.94.0.{101+t}')
    for i in range(t,400,4):
        c.cookies.clear()
        r=c.get('/v1/search',params={'q':'maple leaf','limit':13,'creator_id':me},headers={'Cookie':cks[i]}); st[r.status_code]=st.get(r.status_code,0)+1
t0=time.time(); ts=[threading.Thread(target=work,args=(t,)) for t in range(4)]; [t.start() for t in ts]
for _ in range(14):
    time.sleep(1); e=adm.get(f'/v1/creators/{me}/earnings').json(); print(round(time.time()-t0,1),{x:e[x] for x in('accrued','payable','in_flight','paid')},(e['held'] or '')[:8],flush=True)
print(st)
for p in adm.get(f'/v1/creators/{me}/payouts?limit=6').json()['payouts']: print(p['id'],p['amount_pix'],p['state'],p['planned_at'])
