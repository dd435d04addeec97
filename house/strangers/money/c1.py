from chain import *
from h import *
print('treasury sol',lam(TREAS),'tata',str(TATA),bal(TATA),'eve',lam(eve.pubkey()),bal(EATA))
print(send(transfer(EATA,TATA,1))); print('deposit 1',bal(TATA))
n=int(bal(EATA)); 
print(send(burn(EATA,n),close(EATA,eve.pubkey()))); print('eve',lam(eve.pubkey()),'ata',bal(EATA))
tot=lam(TREAS)
for i in range(4):
    t0=lam(TREAS); e0=earn([22])[22]
    fresh().get('/v1/search',params={'q':'tokyo tower'})
    for _ in range(40):
        time.sleep(.5)
        if bal(EATA): break
    n=bal(EATA); l1=lam(eve.pubkey()); r=send(burn(EATA,int(n)),close(EATA,eve.pubkey())) if n else None
    print('round',i,'paid',n,'treasury lamports lost',t0-lam(TREAS),'eve gained',lam(eve.pubkey())-l1, earn([22])[22]-e0)
print(adm.get('/v1/creators/22/earnings').text)
