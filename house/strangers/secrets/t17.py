from h import *
from s3x import *
import glob,time
v=sorted(glob.glob('/tmp/stranger/vids/*.mp4'))
put('bruno-plans/manifest.csv',b"file,title,description,tags,visibility\nq3.mp4,Zqx acquisition of ACME for 40 million,Zqx closing in May,zqxtag,private\n")
put('bruno-plans/q3.mp4',open(v[2],'rb').read()+b'\0'*77)
# bruno's job, the creator given by the key
x=r('POST','/v1/jobs','bruno-ing',json={'source':'s3://pixr/bruno-plans/'}); J=x.json()['id']
def wait(k,j,n=60):
  for i in range(n):
    d=r('GET','/v1/jobs/'+j,k).json()
    if d['status'] not in('queued','running'): return d
    time.sleep(1.5)
  return d
d=wait('bruno-ing',J); print(d['status'],d['error'],d['remarks'])
bv=[w for w in r('GET','/v1/videos?limit=100','bruno-ing').json()['videos'] if 'bruno-plans' in (w['source_uri'] or '')]; print('bruno',[(w['id'],w['title'],w['visibility']) for w in bv])
# mallory, step 1: file names
x=r('POST','/v1/jobs','none-ing',json={'source':'s3://pixr/mallory/','manifest':'s3://pixr/bruno-plans/manifest.csv'}); d=wait('none-ing',x.json()['id']); print('step1',d['remarks'])
# step 2: a file of that name of her own
put('mallory2/q3.mp4',open(v[3],'rb').read()+b'\0'*78)
x=r('POST','/v1/jobs','none-ing',json={'source':'s3://pixr/mallory2/','manifest':'s3://pixr/bruno-plans/manifest.csv'}); d=wait('none-ing',x.json()['id']); print('step2',d['status'],d['error'],d['remarks'])
print([(w['id'],w['title'],w['description'],w['tags'],w['visibility'],w['creator']) for w in r('GET','/v1/videos?limit=100','none-ing').json()['videos'] if w['creator']=='mallory'])
