from h import *
from s3x import *
import glob,time
v=sorted(glob.glob('/tmp/stranger/vids/*.mp4'))
put('bruno-raw/zqxprivate-merger.mp4',open(v[0],'rb').read()+b'\0'*40)
put('bruno-raw/zqxnotes.txt',b'hello')
x=r('POST','/v1/jobs','bruno-ing',json={'source':'s3://pixr/bruno-raw/'}); print(x.text[:200]); jid=x.json()['id']
for i in range(40):
  j=r('GET','/v1/jobs/'+jid,'bruno-ing').json()
  if j['status'] not in('queued','running'): break
  time.sleep(2)
print(json.dumps(j)[:900])
vs=[w for w in r('GET','/v1/videos?limit=100','bruno-ing').json()['videos'] if w['source_uri'] and 'bruno-raw' in w['source_uri']]
print(vs)
vid=vs[0]['id']
print(r('PATCH','/v1/videos/'+vid,'bruno-ing',json={'visibility':'private','title':'Zqx top secret merger'}).status_code)
x=r('POST','/v1/jobs','none-ing',json={'source':'s3://pixr/bruno-raw/'}); print(x.text[:200]); jid=x.json()['id']
x2=r('POST','/v1/jobs','none-ing',json={'source':'s3://pixr/bruno-raw/','options':{'reassign':True}}); print(x2.text[:200]); 
for i in range(60):
  j=r('GET','/v1/jobs/'+jid,'none-ing').json(); k=r('GET','/v1/jobs/'+x2.json()['id'],'none-ing').json() if x2.status_code==202 else j
  if j['status'] not in('queued','running') and k['status'] not in ('queued','running'): break
  time.sleep(2)
print(json.dumps(j)[:1500]);print(json.dumps(k)[:1500])
print(r('GET','/v1/videos/'+vid,'admin').text[:600])
print(vid,'as none-ing',r('GET','/v1/videos/'+vid,'none-ing').text[:200]); print([ (w['id'],w['title']) for w in r('GET','/v1/videos?limit=100','none-ing').json()['videos']])
