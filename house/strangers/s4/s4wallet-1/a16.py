from chainlib import *; from db import q
E=json.load(open('e.json'))
def fund2(cid,n):
    b=json.dumps({'from':'reward_pool','to':f'payable:creator:{cid}','asset':'PIX','amount':n})
    g1,g2=open('ghost1.key').read(),open('ghost2.key').read()
    o=q('ledger',"select ledger.place_order(%s,'correction',%s::jsonb,'fund',86400)",g1,b)[0][0]; q('ledger',"select ledger.approve_order(%s,%s)",g2,o); return o
print('revoke thief',req('DELETE',f"/v1/keys/{E['e1']['thiefid']}",ADMIN)[0], req('GET',f"/v1/creators/{E['e1']['id']}/earnings",E['e1']['thief'])[0])
print(pixr('payouts','hold',E['e2']['id'],'fraud, police case 7')); fund2(E['e2']['id'],9000)
print('e3 change',prove(E['e3']['id'],E['e3']['key'],kp('w_e3new'))[1]); 
fund2(E['e4']['id'],5000); fund2(E['e5']['id'],300)
print(pixr('payouts','hold',8,'attacker is a fraud'))
time.sleep(8); print('e4',bal(kp('w_e4').pubkey()),'e5',bal(kp('w_e5').pubkey()),'e2',bal(kp('w_e2').pubkey()))
print(open('ing1.log').read())
print(q('owner','select creator_id,wallet,set_by,hold_until from ledger.wallets where creator_id in (1,7) or creator_id>30'))
print(q('owner',"select id,handle,wallet from media.creators where id>25"))
