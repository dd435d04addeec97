import lib1
from lib1 import *
import threading, concurrent.futures as cf
a=settle()
def step(name):
    global a
    b=settle(); print('   credited',name,delta(a,b),flush=True); a=b
def S(c,q,h={},m='GET',**p):
    return c.request(m,'/v1/search',params={'q':q,**p},headers=h)
# idempotency key
h={'Idempotency-Key':'idem-%d'%time.time()}
c=fresh(); r=S(c,'leopard',h); print(r.status_code); step('idem 1')
c2=fresh(); r=S(c2,'leopard',h); print(r.status_code,r.text[:150]); step('same idem other viewer')
r=S(c,'lizard',h); print(r.status_code,r.text[:150]); step('same idem other search')
# race: same viewer same search concurrently
c=fresh()
with cf.ThreadPoolExecutor(12) as ex: list(ex.map(lambda i:S(c,'leopard').status_code,range(12)))
step('12 concurrent same viewer')
def addrrace(i,addr,ck=None,h={}):
    x=cl(addr); return S(x,'leopard',h).status_code
ad='127.201.33.%d'%random.randrange(1,250)
with cf.ThreadPoolExecutor(12) as ex: print(list(ex.map(lambda i:addrrace(i,ad,h={'Idempotency-Key':f'zz{i}{time.time()}'}),range(12))))
step('12 concurrent conns diff idem keys')
hk='rc%d'%time.time()
with cf.ThreadPoolExecutor(8) as ex: print(list(ex.map(lambda i:S(fresh(),['leopard','lizard','goggles','bathtub','robot','necktie','scarf','tent'][i],{'Idempotency-Key':hk}).status_code,range(8))))
step('8 concurrent same idem, diff searches and addresses')
# streams
c=fresh()
with c.stream('GET','/v1/search/stream',params={'q':'leopard'}) as r: t=r.read()
step('stream'); S(c,'leopard'); step('stream then search')
c=fresh()
with c.stream('GET','/v1/search/stream',params={'q':'leopard'}) as r:
    next(r.iter_raw())
c.close(); step('stream cut')
# cursor pages
c=fresh(); r=S(c,'animal at sea',relevance_min_ppm=0,limit=2,explain='true'); j=r.json(); print([ (m['segment_id'],m['relevance_ppm'],m['explain']['above_cut']) for m in j['moments']]); step('page1')
cur=j['next_cursor']; r=c.get('/v1/search',params={'cursor':cur,'explain':'true'}); print(r.status_code,[ (m['segment_id'],m['relevance_ppm'],m.get('explain',{}).get('above_cut')) for m in r.json().get('moments',[])]); step('page2'); 
c=fresh(); r=c.get('/v1/search',params={'cursor':cur}); print(r.status_code); step('cursor by other viewer')
r=c.post('/v1/search',json={'cursor':cur,'intent':'search'}); print(r.status_code); step('cursor post intent')
# group_by video spans
c=fresh(); r=c.get('/v1/search',params={'q':'a','group_by':'video','relevance_min_ppm':0}); print([(m['segment_id'],m['relevance_ppm'],m.get('more')) for m in r.json()['moments'][:3]]); step('group')
# keys
S(fresh(),'leopard',K(srch)); step('search key'); S(fresh(),'leopard',K(srch)); step('search key again other addr')
S(fresh(),'leopard',K(cre3)); step('creator 3 key for own'); S(fresh(),'blowfish',K(cre3)); step('creator3 key for bruno')
S(fresh(),'handbag',K(ana)); step('ana ingest key own')
S(fresh(),'leopard',AH); step('admin key')
S(fresh(),'leopard',{'X-API-Key':srch}); step('x-api-key')
r=S(fresh(),'leopard',{'X-API-Key':srch,'Authorization':'Bearer '+cre3}); print(r.status_code,r.text[:100]); step('both keys')
# Key cross-site
r=S(fresh(),'handbag',{**K(srch),'Sec-Fetch-Site':'cross-site'}); step('key cross-site')
