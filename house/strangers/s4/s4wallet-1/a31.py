from fund2 import *
P={'y1':mkcreator('y1')}; print(fund(P['y1'][0],80000))
print(until(lambda:req('GET',f"/v1/creators/{P['y1'][0]}/earnings",P['y1'][1])[1]['payable']!='0'))
print(pixr('backup','/tmp/s4wallet-1/b5.dump')); json.dump(P,open('p3.json','w'))
print('first wallet proven, after the dump',prove(*P['y1'],kp('y1a'))[1].get('hold_until')); print(until(lambda:bal(kp('y1a').pubkey())=='80000',20))
