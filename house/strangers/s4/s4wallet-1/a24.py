from fund2 import *
import re
cid,k=json.load(open('d1.json')); old,new=kp('d1old'),kp('d1new')
for n in re.findall(r'(?:freeze|hold)-\d+',pixr('payouts','stops')[1]): print(n,pixr('payouts','release',n))
print(until(lambda:bal(old.pubkey())=='100000',30)); print('d1 old wallet',bal(old.pubkey()),'new wallet',bal(new.pubkey()))
show('honest: d1 names d1new again',prove(cid,k,new)[0]); time.sleep(3)
show('d1',req('GET',f'/v1/creators/{cid}/earnings',k)[1])
rc,o=pixr('audit','--full'); print(rc,o)
