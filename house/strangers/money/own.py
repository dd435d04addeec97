# keys: ana-ingest (for ana), mallory-ingest, creator key of 3 ; authorisation probes
from h import *
def p(name,r): print(name,r.status_code,r.text[:230])
try:
    import base58
except Exception: base58=None
from solders.keypair import Keypair
kp=Keypair(); W=str(kp.pubkey()); print(W)
for nm,k in [('ana',ana),('mal',mal),('srch',srch),('cre3',cre3)]:
    h=K(k)
    for cid in ('1','2','3'):
        p(f'{nm} PUT wallet {cid}',fresh().put(f'/v1/creators/{cid}/wallet',json={'wallet':W},headers=h)) if not (nm=='cre3' and cid=='3') else None
        p(f'{nm} earnings {cid}',fresh().get(f'/v1/creators/{cid}/earnings',headers=h))
    p(f'{nm} PATCH video 12',fresh().patch('/v1/videos/12',json={'title':'mine'},headers=h)) if nm not in('cre3',) else None
    p(f'{nm} DELETE video 15',fresh().delete('/v1/videos/15',headers=h))
    p(f'{nm} keys',fresh().get('/v1/keys',headers=h))
    p(f'{nm} POST key',fresh().post('/v1/keys',headers=h,json={'name':'x','scopes':['admin']}))
    p(f'{nm} rotate 1',fresh().post('/v1/keys/1/rotate',headers=h,json={}))
    p(f'{nm} del 1',fresh().delete('/v1/keys/4',headers=h))
# wallets that are not wallets, by cre3 (owner)
h=K(cre3); c=fresh()
p('w',c.get('/v1/creators/3',headers=h))
