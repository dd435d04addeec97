# principal by NAME: does a creator key share wallet challenge / view with a creator key of ANOTHER creator with the same name? and search key named like the ingest key of a creator: self dealing detection by name?
from h import *
def mk(**k): return adm.post('/v1/keys',json=k).json()
a=settle()
def step(n):
    global a
    b=settle(); print(n,delta(a,b),flush=True); a=b
N='zed%d'%time.time()
# viewer_day etc: rename a key = new viewer & new source
for i in range(3):
    k=mk(name=f'{N}-{i}',scopes=['search']); fresh().get('/v1/search',params={'q':'leopard','creator_id':'3'},headers=K(k['key']))
step('3 differently named search keys')
k=mk(name=N+' ',scopes=['search']); k2=mk(name=N.upper(),scopes=['search']); k3=mk(name=N,scopes=['search'])
for x in (k,k2,k3): print(x.get('name'),x.get('detail')); fresh().get('/v1/search',params={'q':'leopard','creator_id':'3'},headers=K(x['key']))
step('names differing in case/space')
# key + cookie: viewer?
c=fresh(); ck=c.get('/').headers['set-cookie'].split(';')[0]; c.cookies.clear()
c.get('/v1/search',params={'q':'leopard','creator_id':'3'},headers={**K(k3['key']),'Cookie':ck}); step('key again with cookie')
# revoked key
adm.delete('/v1/keys/'+k3['id']); r=fresh().get('/v1/search',params={'q':'lizard'},headers=K(k3['key'])); print(r.status_code); step('revoked')
# creator-scope key (3) + ?creator other ; does key of scope creator named differently search 'ªna' copy -> pays copy
fresh().get('/v1/search',params={'q':'leopard'},headers=K(cre3)); step('creator3 key leopard (own + copy of another creator)')
