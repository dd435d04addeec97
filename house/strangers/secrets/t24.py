from h import *
from s3x import *
import glob,time
v=sorted(glob.glob('/tmp/stranger/vids/*.mp4'))
put('bruno-unreleased/zqxfilm.mp4',open(v[2],'rb').read()+b'\0'*333)
put('bruno-plans2/manifest.csv',b"file,title,description,visibility\nq4.mp4,Zqx layoffs plan,Zqx in june,private\n")
put('bruno-plans2/q4.mp4',open(v[3],'rb').read()+b'\0'*334)
J=[]
for s in ('s3://pixr/bruno-unreleased/','s3://pixr/bruno-plans2/'):
  x=r('POST','/v1/jobs','none-ing',json={'source':s}); J.append(x.json()['id'])
for j in J:
  for i in range(60):
    d=r('GET','/v1/jobs/'+j,'none-ing').json()
    if d['status'] not in('queued','running'): break
    time.sleep(1.5)
  print(d['source'],d['status'],d['error'],d['remarks'])
for w in r('GET','/v1/videos?limit=100','none-ing').json()['videos']:
  if 'bruno' in (w['source_uri'] or ''):
    s=r('GET',f"/v1/videos/{w['id']}/segments",'none-ing').json()['segments'][0]; l=r('GET',s['play_url'].split('#')[0]); b=r('GET',l.headers['location'])
    print(w['id'],w['creator'],w['title'],w['description'],w['visibility'],w['source_uri'],'bytes read',len(b.content), b.content==fs.cat(w['source_uri'][5:]))
# then bruno's own job
x=r('POST','/v1/jobs','bruno-ing',json={'source':'s3://pixr/bruno-plans2/'}); j=x.json()['id']
for i in range(60):
    d=r('GET','/v1/jobs/'+j,'bruno-ing').json()
    if d['status'] not in('queued','running'): break
    time.sleep(1.5)
print('bruno himself',d['status'],d['error'],d['remarks'])
