from chainlib import *; from db import q
print(q('owner','select id,handle,wallet from media.creators where id in(7,1)'))
print(q('serve',"update ledger.wallets set hold_until='2999-12-31' where creator_id in (1,2,3)"))
s,d=req('GET','/v1/search?q=a+laptop+and+an+ice+skate&limit=5',None); print(s,len(d.get('moments',d.get('results',[]))))
s,d=req('GET','/v1/search?q=a+collision+and+a+drum&limit=5',None)
time.sleep(6)
k2=json.load(open('keys2.json'))
show(req('GET','/v1/creators/1/earnings',k2['ana'])[1])
print(pixr('payouts','stops')); 
print(pixr('payouts','wallet','show',1))
E='EiuFUB2G9kRMGLRWqap7MBfWER3555gyh9VFQZheG3Qo'
show('ana names her wallet again',req('PUT','/v1/creators/1/wallet',k2['ana'],{'wallet':E}))
print('admin sets it again',pixr('payouts','wallet','set',1,E)); print('release',pixr('payouts','release','wallet-1'),pixr('payouts','release','hold-1'))
rc,o=pixr('audit','--full'); print('audit',rc,[l for l in o.split('\n') if '✓' not in l])
rc,o=pixr('status'); print([l for l in o.split('\n') if 'open' in l or 'wallet' in l or 'hold' in l])
