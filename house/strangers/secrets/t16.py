from h import *
for k in ['none-ing']:
  for j in r('GET','/v1/jobs?limit=50',k).json()['jobs']:
    if j['id']>='ingest-20261130-12321': print(json.dumps({a:j[a] for a in('id','status','source','error','options','remarks','waits_for')},ensure_ascii=False)[:1100])
js=r('GET','/v1/jobs?limit=5','admin').json()['jobs']
for j in js: print(j['id'],j['status'],j['source'],j['options'],j['waits_for'],json.dumps(j['remarks'])[:1500],json.dumps(j['failures'])[:2500])
