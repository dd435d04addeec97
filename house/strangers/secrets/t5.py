from h import *
for k in ['none-ing']:
  for j in r('GET','/v1/jobs?limit=20',k).json()['jobs']:
    if j['source'].endswith('9b8e9d1808cdc913679bdc0874d108d4.jsonl'): continue
    print(k,json.dumps({a:j[a] for a in('id','status','source','videos','error','failures','options','remarks','waits_for')},ensure_ascii=False)[:1500])
