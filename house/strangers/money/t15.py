import lib1
from lib1 import *
a=settle()
def step(name):
    global a
    b=settle(); print('   credited',name,delta(a,b),flush=True); a=b
def S(c,q,h={},m='GET',p='/v1/search',**k):
    return c.request(m,p,params={'q':q,**k},headers=h)
for h in [{'Authorization':'Basic dTpw'},{'Authorization':''},{'X-API-Key':''}]:
    r=S(fresh(),'leopard',{**h,'Sec-Fetch-Site':'cross-site'}); print(h,r.status_code); step('')
c=fresh(); 
with c.stream('GET','/v1/search/stream',params={'q':'leopard'},headers={'Sec-Fetch-Site':'cross-site'}) as r: r.read()
step('stream cross-site')
r=fresh().get('/v1/segments/18/similar',headers={'Sec-Fetch-Site':'cross-site'}); step('similar cross-site')
r=fresh().post('/v1/search',content='{"text":"leopard"}',headers={'Content-Type':'text/plain','Sec-Fetch-Site':'cross-site'}); print(r.status_code); step('post text/plain')
# statement of gorilla after cap
c=fresh(); r=c.get('/v1/search',params={'q':'gorilla','creator_id':'3','explain':'true'}).json(); print([(m['segment_id'],m['relevance_ppm'],m['explain']['above_cut']) for m in r['moments']][:2]); step('chidi gorilla honest, filtered')
A2=adm.get('/v1/creators/3/earnings').json(); print(A2)
for kk in adm.get('/v1/keys?limit=1000').json()['keys']:
    if not kk['revoked_at'] and (kk['name'].startswith('str-') or kk['name'] in('c18','c19','w19','w20','w25','w21','r37','e22','same','own3','own3b','one-18','two-18','web','t') or kk['name'].lower().startswith('zed')): adm.delete('/v1/keys/'+kk['id'])
