from chainlib import *; from db import q
E=json.load(open('e.json'))
exec(open('a16.py').read().split('print(')[0].split('\n',2)[2])
fund2(E['e3']['id'],100)
for _ in range(12):
    time.sleep(1); b=bal(kp('w_e3new').pubkey())
    if str(b)=='100': break
print('e3 old',bal(kp('w_e3').pubkey()),'new',b)
