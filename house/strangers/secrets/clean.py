from h import *
mine={'search1','search2','ana-ing','bruno-ing','any-ing','cr-ana','cr-bruno','creator3','none-ing','tmp','tmp3','m1','m2','hh','AB','A2','B2'}
ks=[];cur=None
while True:
  d=r('GET','/v1/keys','admin',params={'limit':100,**({'cursor':cur} if cur else {})}).json() if not cur else r('GET','/v1/keys','admin',params={'cursor':cur}).json()
  ks+=d['keys']; cur=d['next_cursor']
  if not cur: break
for j in r('GET','/v1/jobs?limit=100','none-ing').json()['jobs']+r('GET','/v1/jobs?limit=100','bruno-ing').json()['jobs']:
  if j['status'] in('queued','running'): print('cancel',r('DELETE','/v1/jobs/'+j['id'],'none-ing' if 'mallory' in str(j['options']) else 'bruno-ing').status_code)
n=0
for k in ks:
  if k['name'] in mine and not k['revoked_at']: n+=r('DELETE','/v1/keys/'+k['id'],'admin').status_code<300
print('revoked',n)
