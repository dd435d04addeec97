import csv,json
from solders.keypair import Keypair
from solders.pubkey import Pubkey
kp=Keypair(); json.dump(list(bytes(kp)),open('eve.json','w')); W=str(kp.pubkey()); print(W)
rows=list(csv.DictReader(open('w/manifest.csv')))
off=str(Pubkey.find_program_address([b'x'],Pubkey.default())[0])
ws=[('evesys','11111111111111111111111111111111'),('evetok','TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA'),('evetreas','6i1NrxMFUkwHzzgQCamZyqPiHqCMbMXKKFMFKhjogC8Z'),('eveata','5b2RK3hjNapCV2UtJ6tLxY9hGdXg3NbYqwYBuhboDK7N'),('evechidi','C4Qmxp7gz4ZukX4XfveADa6JQUPfY3EHLffbiHLWbM9d'),('eveown',W),('сhidi',W),('evemint','67FDzL7DUMK9SadGgoiPH1WNWWkgTW3oqhpwt6FbpE9u'),('eveoff',off),('evesysvar','SysvarRent111111111111111111111111111111111')]
for r,(h,w) in zip(rows,ws): r['creator']=h; r['wallet']=w
f=open('w/manifest.csv','w',newline=''); c=csv.DictWriter(f,rows[0].keys()); c.writeheader(); c.writerows(rows)
