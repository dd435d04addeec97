from h import *
from s3x import *
import time
for q in ['status=quarantined','status=removed','status=failed','status=queued','visibility=private&status=ready','visibility=unlisted&creator=ana','status=processing&visibility=public','creator=mallory&visibility=private']:
  print(q,[(k,(lambda x:(x.status_code,x.json().get('total')))(r('GET','/v1/videos?'+q,k))) for k in('none','search1','none-ing','bruno-ing')])
# same content and name as bruno's private video
put('mallory3/q3.mp4',fs.cat('pixr/bruno-plans/q3.mp4'))
x=r('POST','/v1/jobs','none-ing',json={'source':'s3://pixr/mallory3/'}); j=x.json()['id']
# wallets
mal=[c_ for c_ in r('GET','/v1/creators','admin').json()['creators'] if c_['handle']=='mallory']; mid='12'
ks={}
for nm in ('m1','m2'):
  n=r('POST','/v1/keys','admin',json={'name':nm,'scopes':['creator'],'creator_id':12}).json(); K[nm]=n['key']
from solders.keypair import Keypair
kp=Keypair(); other=Keypair(); W=str(kp.pubkey())
ch=r('POST',f'/v1/creators/{mid}/wallet/challenge','m1',json={'wallet':W}); print(ch.status_code,ch.text[:700])
d=ch.json(); sig=str(kp.sign_message(d['message'].encode()))
pf={'wallet':W,'proof':{'nonce':d['nonce'],'signature':sig}}
print('m2 uses m1 challenge',r('PUT',f'/v1/creators/{mid}/wallet','m2',json=pf).text[:200])
print('cr-ana uses for ana',r('PUT','/v1/creators/1/wallet','cr-ana',json=pf).text[:200])
print('other wallet',r('PUT',f'/v1/creators/{mid}/wallet','m1',json={'wallet':str(other.pubkey()),'proof':pf['proof']}).text[:200])
x=r('PUT',f'/v1/creators/{mid}/wallet','m1',json=pf); print('m1',x.status_code,x.text[:250])
print('replay',r('PUT',f'/v1/creators/{mid}/wallet','m1',json=pf).text[:250])
for i in range(60):
  dd=r('GET','/v1/jobs/'+j,'none-ing').json()
  if dd['status'] not in('queued','running'): break
  time.sleep(1.5)
print(dd['status'],dd['error'],dd['remarks'],[(w['id'],w['title'],w['source_uri']) for w in r('GET','/v1/videos?limit=100','none-ing').json()['videos'] if w['creator']=='mallory'])
