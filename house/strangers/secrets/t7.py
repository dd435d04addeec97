from h import *
from s3x import *
for j in r('GET','/v1/jobs?limit=50','any-ing').json()['jobs']:
  if j['status'] in('queued','running') and not (j['options'].get('manifest') and j['options'].get('speaks_for')): r('DELETE','/v1/jobs/'+j['id'],'any-ing')
import glob
v=sorted(glob.glob('/tmp/stranger/vids/*.mp4'))
man="file,title,description,tags,creator,wallet\nsecret-merger.mp4,Zqx merger talk,zqx desc,a;b,bruno,\nhidden-layoffs.mp4,Zqx layoffs,zqx,a,bruno,\n"
put('bruno-folder/manifest.csv',man.encode())
put('bruno-folder/secret-merger.mp4',open(v[0],'rb').read()+b'\0'*8)
put('bruno-folder/broken/manifest.csv',b'file,title,creator\n"x.mp4,Zqxbroken secret line,bruno\n')
put('bruno-folder/notes/zqx-plan.txt',b'API_KEY=zqxsupersecret\nline two\n')
put('mallory/m.mp4',open(v[1],'rb').read()+b'\0'*16)
for k in fs.find('pixr'): print(k)
for m in ['s3://pixr/bruno-folder/manifest.csv','s3://pixr/bruno-folder/broken/manifest.csv','s3://pixr/bruno-folder/notes/zqx-plan.txt','s3://pixr/uploads/lists/70a221448d6e1fccfd759dd4d2f52488.jsonl']:
    x=r('POST','/v1/jobs','none-ing',json={'source':'s3://pixr/mallory/','manifest':m}); print(m,x.status_code,x.text[:200])
for s in ['s3://pixr/bruno-folder/','s3://pixr/bruno-folder/secret-merger.mp4','s3://pixr/bruno-folder/zzz','s3://pixr/bruno-folder/broken/']:
    x=r('POST','/v1/jobs','none-ing',json={'source':s}); print(s,x.status_code,x.text[:200])
