from chain import *
from h import *
time.sleep(3)
print('treasury sol',lam(TREAS),bal(TATA),'eve',lam(eve.pubkey()),bal(EATA))
tl=lam(TREAS); el=lam(eve.pubkey()); paid=0
for i in range(5):
    t0=lam(TREAS); l1=lam(eve.pubkey()); n=bal(EATA)
    r=send(burn(EATA,int(n)),close(EATA,eve.pubkey())) if n else None
    gained=lam(eve.pubkey())-l1
    fresh().get('/v1/search',params={'q':'tokyo tower'}); t=time.time()
    for _ in range(60):
        time.sleep(.5)
        if bal(EATA): break
    print('round',i,'closed',n,r and ('error' in r),'eve gained',gained,'paid again',bal(EATA),'after',round(time.time()-t,1),'treasury lost',t0-lam(TREAS),flush=True)
print('total treasury lost',tl-lam(TREAS),'eve gained',lam(eve.pubkey())-el)
e=adm.get('/v1/creators/22/earnings').json(); print(e)
