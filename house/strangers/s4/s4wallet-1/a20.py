from chainlib import *; from db import q
E=json.load(open('e.json'))
print('thief key after restore',req('GET',f"/v1/creators/{E['e1']['id']}/earnings",E['e1']['thief'])[0])
print(pixr('payouts','stops')[1])
def pay():
    return q('owner',"select owner, kind, balance from ledger.accounts where kind='payable'") 
print(q('owner',"select * from ledger.accounts limit 0") if False else '')
for h in ('e1','e2','e3','e4','e5'):
    s,d=req('GET',f"/v1/creators/{E[h]['id']}/earnings",E[h]['key']); print(h,s,{k:d.get(k) for k in('accrued','in_flight','paid','on_chain','payable','wallet','held')})
rc,o=pixr('audit'); print(rc,o)
