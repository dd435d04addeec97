from h import *
def mk(**k): return adm.post('/v1/keys',json=k).json()
ka=mk(name='web',scopes=['ingest'],creators=['ana']); km=mk(name='web',scopes=['ingest'],creators=['mallory']); ks=mk(name='web',scopes=['search'])
src='s3://pixr/ledger/heads/'
for n,k in (('ana',ka),('mal',km)):
    r=fresh().post('/v1/jobs',json={'source':src,'creator':n if n=='ana' else 'mallory'},headers={**K(k['key']),'Idempotency-Key':'same-1'}); print(n,r.status_code,r.text[:420])
    r=fresh().get('/v1/jobs',headers=K(k['key'])); print(' jobs',[ (j['id'],j['options']) for j in r.json()['jobs']])
a=settle()
# key 'web' of ingest ana and key 'web' of search : does search key earn for ana? is viewer shared between?
fresh().get('/v1/search',params={'q':'handbag'},headers=K(ka['key'])); b=settle(); print('web/ana key searches own handbag',delta(a,b)); a=b
fresh().get('/v1/search',params={'q':'handbag'},headers=K(ks['key'])); b=settle(); print('web/search key handbag',delta(a,b)); a=b
fresh().get('/v1/search',params={'q':'leopard'},headers=K(km['key'])); b=settle(); print('web/mal leopard',delta(a,b)); a=b
fresh().get('/v1/search',params={'q':'leopard'},headers=K(ks['key'])); b=settle(); print('web/search leopard',delta(a,b)); a=b
