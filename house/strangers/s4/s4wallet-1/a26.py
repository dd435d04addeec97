from fund2 import *
import re
P=json.load(open('p.json'))
def st():
    for n,(i,k) in P.items():
        d=req('GET',f'/v1/creators/{i}/earnings',k)[1]; print(n,i,{x:d.get(x) for x in('accrued','paid','payable','wallet','held')})
until(lambda:'freeze-2000000027' in pixr('payouts','stops')[1],1); time.sleep(8); st()
print(json.dumps(json.loads(pixr('payouts','stops','--json')[1]))[:1500])
print('control: d4 names d4new itself',prove(*P['d4'],kp('d4new'))[0]); time.sleep(12); st()
