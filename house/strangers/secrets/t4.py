from h import *
# jobs by different keys, ingestion scope
for k in ['none','search1','cr-ana','ana-ing','bruno-ing','none-ing','any-ing']:
  x=r('GET','/v1/jobs',k); print(k,x.status_code,x.text[:200])
  x=r('GET','/v1/jobs/ingest-20261130-122601-a4b803',k); print('   ',x.status_code,x.text[:160])
  x=r('DELETE','/v1/jobs/ingest-20261130-122601-zzzzzz',k); print('   ',x.status_code,x.text[:160])
  for p in ['/v1/keys','/v1/creators/1/earnings','/v1/creators/1/earnings/live','/v1/creators/1/payouts','/v1/creators/999/payouts','/v1/creators/1/statement.csv','/metrics']:
     x=r('GET',p,k); print('   ',p,x.status_code,x.text[:110].replace('\n',' '))
for src in ['s3://pixr/uploads/','s3://pixr/uploads/lists/70a221448d6e1fccfd759dd4d2f52488.jsonl','s3://pixr/uploads/3a/3aa10ee564eab5cbe8624429b6ce5ce40ab86cb71e29b728aa7bd9b5227abc13/0002-pie.mp4','s3://pixr/','s3://pixr','s3://other/x','file:///etc/passwd','/etc/','s3://pixr/../x','s3://pixr/uploads/../','http://127.0.0.1:8900/','s3://pixr/thumbnails/','s3://pixr/ledger/','s3://pixr/nope/','s3://user:pw@pixr/x','s3://pixr/%2e%2e/','s3://pixr//','s3://pixr/incoming/']:
  for k in ['bruno-ing','any-ing','none-ing']:
    if k=='any-ing' and src in('s3://pixr/','s3://pixr','s3://pixr//','s3://pixr/uploads/'): continue
    x=r('POST','/v1/jobs',k,json={'source':src}); print(k,src,x.status_code,x.text[:300])
for m in ['s3://pixr/uploads/lists/70a221448d6e1fccfd759dd4d2f52488.jsonl','/tmp/str-b/secrets/api_admin_key','file:///tmp/str-b/secrets/api_admin_key','s3://pixr/nope/manifest.csv','s3://other/manifest.csv','http://127.0.0.1:8900/manifest.csv','s3://pixr/ledger/heads/']:
  for k in ['bruno-ing','any-ing']:
    x=r('POST','/v1/jobs',k,json={'source':'s3://pixr/incoming/','manifest':m}); print(k,'MAN',m,x.status_code,x.text[:300])
for mo in ['hf-hub:evil/x','/etc/passwd','/tmp/str-b/secrets','../../x','ViT-B-32/laion2b_s34b_b79k']:
    x=r('POST','/v1/jobs','any-ing',json={'source':'s3://pixr/incoming/','model':mo}); print('MODEL',mo,x.status_code,x.text[:300])
