from fund2 import *
E=json.load(open('e.json'))
import re
for n in re.findall(r'freeze-\d+',pixr('payouts','stops')[1]): print(n,pixr('payouts','release',n))
cid,k=mkcreator('d1'); old,new=kp('d1old'),kp('d1new')
print('d1',cid,prove(cid,k,old)[1].get('hold_until'))
print(pixr('payouts','hold',cid,'waiting for tax form')); print('order',fund2(cid,100000)); 
print('re-order e4 5000 (forgotten by the restore)',fund2(E['e4']['id'],5000))
until(lambda:req('GET',f'/v1/creators/{cid}/earnings',k)[1]['payable']=='100000'); show(req('GET',f'/v1/creators/{cid}/earnings',k)[1])
print(pixr('backup','/tmp/s4wallet-1/b2.dump'))
print('change',prove(cid,k,new)[1].get('hold_until'))
print('e4 now',bal(kp('w_e4').pubkey()))
json.dump([cid,k],open('d1.json','w'))
time.sleep(45)
h=[l for l in pixr('payouts','stops','--json')[1].split('\n')]; print(''.join(h)[:600])
nm=re.findall(r'hold-\d+',''.join(h)); print(nm)
for l in json.loads(''.join(h)) if ''.join(h).startswith('[') else []:
    if l.get('creator_id') in (str(cid),cid): print(pixr('payouts','release',l['name']))
until(lambda:bal(new.pubkey())=='100000',40); print('old',bal(old.pubkey()),'new',bal(new.pubkey()),'e4',bal(kp('w_e4').pubkey()))
