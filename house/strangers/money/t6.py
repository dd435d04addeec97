# wallet endpoint by creator key of 3 : odd wallets, challenge replays
import lib1
from lib1 import *
from solders.keypair import Keypair
def p(name,r): print(name,r.status_code,r.text[:260])
h=K(cre3); c=fresh()
p('chal own wallet',c.post('/v1/creators/3/wallet/challenge',json={'wallet':'C4Qmxp7gz4ZukX4XfveADa6JQUPfY3EHLffbiHLWbM9d'},headers=h))
p('chal creator1',c.post('/v1/creators/1/wallet/challenge',json={'wallet':'C4Qmxp7gz4ZukX4XfveADa6JQUPfY3EHLffbiHLWbM9d'},headers=h))
for w in ['1'*32,'1'*44,'TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA','6i1NrxMFUkwHzzgQCamZyqPiHqCMbMXKKFMFKhjogC8Z','67FDzL7DUMK9SadGgoiPH1WNWWkgTW3oqhpwt6FbpE9u','5b2RK3hjNapCV2UtJ6tLxY9hGdXg3NbYqwYBuhboDK7N','BqRhSHd5ZBfcfyeUMMxqhNnrX2xCWqhcKQeZThUuEPVV','z'*44,'SysvarRent111111111111111111111111111111111','7tKtGu4nHwUuj9SiywqiRRDuhYHQ9FUMAgpESUzioKj6']:
    p('chal '+w[:10],c.post('/v1/creators/3/wallet/challenge',json={'wallet':w},headers=h))
