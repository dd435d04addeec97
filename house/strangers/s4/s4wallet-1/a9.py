from chainlib import *; from db import q
ids=json.load(open('ids.json')); keys=json.load(open('keys.json'))
V,Ak=ids['vic1'],ids['att1']
a,v=kp('att_w'),kp('vic_w')
print(prove(V,keys['vic1'],v)[1].get('hold_until'),prove(Ak,keys['att1'],a)[1].get('hold_until'))
try: print(fund(Ak,1000))
except Exception as e: print(str(e)[:300])
drop(a.pubkey()); 
for _ in range(20):
    time.sleep(1)
    if bal(a.pubkey()) not in (None,) and str(bal(a.pubkey())).isdigit(): break
print('att',bal(a.pubkey()),'vic',bal(v.pubkey()))
print(send([setowner(ata(a.pubkey()),a.pubkey(),kp('thief2').pubkey())],a))
time.sleep(3)
print(rpc('getAccountInfo',str(ata(a.pubkey())),{'encoding':'base64'})['result'])
fund(Ak,2000); fund(V,3000)
for i in range(8):
    time.sleep(2); print(i,'att',bal(a.pubkey()),'vic',bal(v.pubkey()))
    if bal(v.pubkey())!='1000005' and i>2: break
print(q('owner',"select * from ledger.holds")); print(q('owner','select reason,detail,placed_at,released_at from ledger.freezes'))
print(pixr('payouts','stops'))
print(q('owner',"select id,creator_id,wallet,amount_pix,state,batch_id from ledger.payouts order by id desc limit 6") if True else '')
