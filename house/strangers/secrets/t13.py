from h import *
import time
# list cursor across keys
x=r('GET','/v1/videos?limit=1&creator=ana','ana-ing').json()['next_cursor']
for k in ['none','bruno-ing','search1']:
  y=r('GET','/v1/videos',k,params={'cursor':x}); print('cursor of ana used by',k,y.status_code,y.text[:250])
import base64
print(base64.urlsafe_b64decode(x+'==')[:300])
j=r('GET','/v1/jobs?limit=1','any-ing').json()['next_cursor']
for k in ['bruno-ing','ana-ing']: y=r('GET','/v1/jobs',k,params={'cursor':j}); print('jobcursor',k,y.status_code,y.text[:200])
y=r('GET','/v1/keys?limit=1','admin').json()['next_cursor']; print('keyscursor as videos',r('GET','/v1/videos','none',params={'cursor':y}).text[:200], r('GET','/v1/keys','ana-ing',params={'cursor':y}).status_code)
p=r('GET','/v1/creators/1/payouts?limit=1','cr-ana').json()['next_cursor']; print('pcur',p)
if p:
  z=r('GET','/v1/creators/2/payouts','cr-bruno',params={'cursor':p}); print('payout cursor ana→bruno',z.status_code,z.text[:300])
# search cursor made from key
s=r('GET','/v1/search?q=pie&limit=1&relevance_min_ppm=0','ana-ing').json()['next_cursor']; z=r('GET','/v1/search','bruno-ing',params={'cursor':s}); print(z.status_code,z.text[:120])
# Idempotency jobs across keys
h={'Idempotency-Key':'zqx-1'}
a=r('POST','/v1/jobs','ana-ing',headers=h,json={'source':'s3://pixr/mallory/'}); b=r('POST','/v1/jobs','bruno-ing',headers=h,json={'source':'s3://pixr/mallory/'}); print(a.json()['id'],b.json().get('id'),b.status_code); 
for k,q in(('ana-ing',a),('bruno-ing',b)): r('DELETE','/v1/jobs/'+q.json()['id'],k)
# rotation/revoke latency
n=r('POST','/v1/keys','admin',json={'name':'tmp','scopes':['ingest'],'creators':'any'}).json(); K['tmp']=n['key']
print('tmp',r('GET','/v1/jobs?limit=1','tmp').status_code)
lst=r('GET','/v1/videos?limit=1','tmp').json()['next_cursor']
seg=r('GET','/v1/videos/14/segments','tmp').json()['segments'][0]
ro=r('POST',f"/v1/keys/{n['id']}/rotate",'admin'); print('rotate',ro.status_code,ro.text[:300]); t=time.time()
while time.time()-t<20:
  c1=r('GET','/v1/jobs?limit=1','tmp').status_code
  c2=r('POST','/v1/search','tmp',json={'query':'pie','intent':'typing'}).status_code
  print(round(time.time()-t,2),c1,c2,end='; ')
  if c1==401 and c2==401: break
  time.sleep(.3)
print()
nk=ro.json(); K['tmp2']=nk['key']; r('DELETE',f"/v1/keys/{nk['id']}",'admin'); t=time.time()
while time.time()-t<20:
  c1=r('GET','/v1/jobs?limit=1','tmp2').status_code; print(round(time.time()-t,2),c1,end='; ')
  if c1==401: break
  time.sleep(.3)
print('link by revoked key',r('GET',seg['play_url'].split('#')[0]).status_code)
# ETag/304 across users
e=r('GET','/v1/videos/14','ana-ing').headers['etag']; z=r('GET','/v1/videos/14','none',headers={'If-None-Match':e}); print('304 priv?',z.status_code); z=r('GET','/v1/videos/14','bruno-ing',headers={'If-None-Match':'*'}); print(z.status_code); z=r('GET','/v1/jobs','bruno-ing',headers={'If-None-Match':'*'}); print(z.status_code)
# events, on private segs
for s in ('38','31','99999','CKMyEh24QweBp8TqHn3EkQ.0','KhhItbkMSNC8BiJT_0MNtw.0','AAAAAAAAAAAAAAAAAAAAAA.0'):
  z=r('POST','/v1/events',json={'segment_id':s}); print('event',s,z.status_code,z.text[:160])
for p,b in [('creator_id',['1']),('creator_id',['999']),('video_id',['14']),('video_id',['999'])]:
  z=r('POST','/v1/search','none',json={'query':'zzz','filters':{p:b}}); print(p,b,z.status_code,z.text[:160])
