from h import *
for i in (3,21,37,44,18): e=adm.get(f'/v1/creators/{i}/earnings').json(); print(i,{x:e[x] for x in('accrued','payable','paid')})
print([ (k['id'],k['name']) for k in adm.get('/v1/keys?limit=1000').json()['keys'] if not k['revoked_at']])
