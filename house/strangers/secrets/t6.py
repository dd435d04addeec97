from h import *
for s in ['s3://pixr/u','s3://pixr/up','s3://pixr/uploads','s3://pixr/uploads/9','s3://pixr/uploads/zz/','s3://pixr/UPLOADS/','s3://pixr/uploads/lists','s3://pixr/uploads/lists/','s3://pixr/thumb','s3://pixr/thumbnails/14','s3://pixr/thumbnails/14/','s3://pixr/thumbnails/14/19/','s3://pixr/thumbnails/14/19/0.webp','s3://pixr/thumbnails/14/19/2.webp','s3://pixr/thumbnails/14/19/5.webp','s3://pixr/thumbnails/77/','s3://pixr/ledger/heads/','s3://pixr/ledger/heads/1','s3://pixr/ledger/heads/zz','s3://pixr/ledger/archive/','s3://pixr/frames/','s3://pixr/vectors/','s3://pixr/l','s3://pixr/zz','s3://pixr/uploads/lists/00000000000000000000000000000000.jsonl']:
  x=r('POST','/v1/jobs','none-ing',json={'source':s}); 
  print(s,x.status_code,x.json().get('detail') or x.json().get('id'))
  if x.status_code==202: r('DELETE','/v1/jobs/'+x.json()['id'],'none-ing')
for m in ['s3://pixr/uploads/lists/70a221448d6e1fccfd759dd4d2f52488.jsonl','/tmp/str-b/secrets/api_admin_key','file:///tmp/str-b/secrets/api_admin_key','s3://pixr/nope/manifest.csv','s3://other/manifest.csv','http://127.0.0.1:8900/manifest.csv','s3://pixr/ledger/heads/','../../manifest.csv','s3://pixr/thumbnails/14/19/0.webp']:
  for k in ['none-ing','any-ing']:
    x=r('POST','/v1/jobs',k,json={'source':'s3://pixr/thumbnails/','manifest':m}); print(k,'MAN',m,x.status_code,x.text[:260])
