from chainlib import *; from db import q
E=json.load(open('e.json'))
def W(c): 
    r=q('owner','select wallet,set_by,hold_until,held_for,proof from ledger.wallets where creator_id=%s',c); return [str(x) for x in r[0]] if r else None
for _ in range(10):
    b=bal(kp('w_e3new').pubkey())
    if str(b)=='100': break
    time.sleep(1)
print('e3 old',bal(kp('w_e3').pubkey()),'new',b)
# e5 proven, never changed; e1 with a change
e5=E['e5']; print(q('serve',"update ledger.wallets set hold_until='2999-12-31' where creator_id=%s",e5['id']),W(e5['id']))
print('prove again',prove(e5['id'],e5['key'],kp('w_e5'))[1].get('hold_until'),W(e5['id']))
e1=E['e1']
print(q('serve',"update ledger.wallets set hold_until='2999-12-31' , wallet=%s where creator_id=%s",str(kp('x').pubkey()),e1['id']),W(e1['id']))
print('prove old',prove(e1['id'],e1['key'],kp('w_e1'))[1].get('hold_until'),'admin',pixr('payouts','wallet','set',e1['id'],str(kp('w_e1').pubkey())))
print('stops',pixr('payouts','stops')[1]);
