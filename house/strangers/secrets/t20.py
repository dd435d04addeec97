from h import *
from s3x import *
import glob,time
v=sorted(glob.glob('/tmp/stranger/vids/*.mp4'))
put('studio/manifest.jsonl',b'{"file":"mallory/a.mp4","creator":"mallory","title":"mine"}\n{"file":"bruno/zqxsecret1.mp4","creator":"bruno","language":"zqxlang2"}\n{"file":"bruno/zqxsecret2.mp4","title":"Zqx other"}\n{"file":"bruno/zqxsecret3.mp4","creator":"bruno","wallet":"zqxwallet2"}\n{"file":"bruno/zqxsecret4.mp4","creator":"bruno"}\n{"file":"bruno/zqxsecret5.mp4","zqxcolumn2":"zqxv","creator":"bruno"}\n')
put('studio/mallory/a.mp4',open(v[0],'rb').read()+b'\0'*123)
put('studio/bruno/zqxsecret4.mp4',open(v[1],'rb').read()+b'\0'*124)
put('studio/bruno/zqxnotes.txt',b'x')
J=[]
for s in ('s3://pixr/studio/mallory/','s3://pixr/studio/','s3://pixr/studio/bruno/'):
  x=r('POST','/v1/jobs','none-ing',json={'source':s}); print(s,x.status_code,x.text[:120]); J.append((s,x.json().get('id')))
for b in [{'source':'s3://pixr/mallory/','creator':'bruno'},{'source':'s3://pixr/mallory/','creator':'Mallory'},{'source':'s3://pixr/uploads/lists/../lists/70a221448d6e1fccfd759dd4d2f52488.jsonl'},{'source':'s3://pixr/./uploads/'},{'source':'s3://pixr/uploads%2f'},{'source':'S3://pixr/uploads/'},{'source':'s3://PIXR/uploads/'},{'source':'s3://pixr/uploads'},{'source':'s3://pixr/mallory/','manifest':'s3://pixr/bruno-nofile/manifest.csv'}]:
  x=r('POST','/v1/jobs','none-ing',json=b); print(b,x.status_code,x.text[60:260])
  if x.status_code==202: r('DELETE','/v1/jobs/'+x.json()['id'],'none-ing')
from PIL import Image; import io
im=Image.open(io.BytesIO(fs.cat('pixr/thumbnails/14/19/0.webp'))); b=io.BytesIO(); im.convert('RGB').save(b,'PNG'); put('queries/zqx/client.png',b.getvalue())
for im in ['s3://pixr/queries/zqx/client.png','s3://pixr/queries/zqx/nope.png','s3://pixr/queries/../thumbnails/14/19/0.webp','s3://pixr/queries/%2e%2e/thumbnails/14/19/0.webp','s3://pixr/queries/','s3://pixr/queries//x','s3://pixr/queries/zqx/..\\x']:
  x=r('GET','/v1/search',params={'image':im,'intent':'typing','limit':1}); print(im,x.status_code,x.text[:160])
for s,j in J:
  for i in range(60):
    d=r('GET','/v1/jobs/'+j,'none-ing').json()
    if d['status'] not in('queued','running'): break
    time.sleep(1.5)
  print(s,d['status'],d['error']); 
  for m in d['remarks']: print('   ',m['kind'],m['count'],m['names'],m['reason'][:140])
