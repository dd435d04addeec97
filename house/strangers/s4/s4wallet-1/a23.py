from fund2 import *
cid,k=json.load(open('d1.json')); old,new=kp('d1old'),kp('d1new')
print(pixr('payouts','stops')[1])
show('d1',req('GET',f'/v1/creators/{cid}/earnings',k)[1])
sid,sk=mkcreator('sock2')
# attacker names another's wallet WITHOUT any proof
show('sock2 names d1new unproven',req('PUT',f'/v1/creators/{sid}/wallet',sk,{'wallet':str(new.pubkey())}))
print(until(lambda:req('GET',f'/v1/creators/{sid}/payouts',sk)[1].get('total'),60))
show('sock2 payouts',req('GET',f'/v1/creators/{sid}/payouts',sk)[1]); show('sock2',req('GET',f'/v1/creators/{sid}/earnings',sk)[1])
show('d1',req('GET',f'/v1/creators/{cid}/earnings',k)[1])
print(pixr('payouts','stops')[1])
