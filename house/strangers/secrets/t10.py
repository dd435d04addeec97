from h import *
from s3x import *
for j in r('GET','/v1/jobs?limit=50','none-ing').json()['jobs']:
  if j['status'] in('queued','running') and '273789' not in j['id']: r('DELETE','/v1/jobs/'+j['id'],'none-ing')
put('bruno-folder/nocreator/manifest.csv',b"file,title,description,tags,visibility\nsecret-merger-with-acme.mp4,Zqx merger talk,zqx desc,a;b,private\nhidden-layoffs.mp4,Zqx layoffs,zqx,a,zzbogusvis\n")
put('bruno-folder/notes/plan2.txt',b'merger with acme,price 40 million,closing in may\nsecond line\n')
put('bruno-folder/notes/x.jsonl',b'{"acme_price": "40 million", "file":"a.mp4","title":7}\n{"file": "secretfile.mp4", "language": "zqxlanguage-secret", "creator":""}\n{"file": "secretfile3.mp4", "wallet": "zqx-wallet-secret"}\n')
put('bruno-folder/notes/y.jsonl',b'{"file": "secretfile.mp4", "language": "zqxlanguage-secret"}\n{"file": "secretfile3.mp4", "wallet": "zqx-wallet-secret"}\n{"file":"../../z.mp4","visibility":"zqxvis"}\n')
ids=[]
for k,src in (('none-ing','s3://pixr/mallory/'),):
 for m in ['bruno-folder/nocreator/manifest.csv','bruno-folder/notes/plan2.txt','bruno-folder/notes/x.jsonl','bruno-folder/notes/y.jsonl','ledger/heads/00000000000000000002-d9a88ea5fb48ff6689b2adb2e1ceef18e9ac98f3681a7bd23e36ad704f78001e-1796041406.json']:
    x=r('POST','/v1/jobs',k,json={'source':src,'manifest':'s3://pixr/'+m}); print(m,x.status_code,x.text[:100])
