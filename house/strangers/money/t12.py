import lib1
from lib1 import *
a=settle()
def step(name):
    global a
    b=settle(); print('   credited',name,delta(a,b),flush=True); a=b
ids={c['handle']:c['id'] for c in adm.get('/v1/creators?limit=100').json()['creators']}; print(ids)
for q in ['tokyo tower']:
    r=fresh().get('/v1/search',params={'q':q,'explain':'true'}).json(); print([(m['creator'],m['segment_id'],m['relevance_ppm']) for m in r['moments'] if m['explain']['above_cut']]); step('tokyo')
    r=fresh().get('/v1/search',params={'q':q,'group_by':'video'}).json(); step('group video')
im=None
t=fresh().get(r['moments'][0]['thumbnail_url'],follow_redirects=True).content
r=fresh().post('/v1/search',json={'image':base64.b64encode(t).decode(),'explain':True}).json(); print([(m['creator'],m['segment_id'],m['relevance_ppm']) for m in r['moments'] if m['explain']['above_cut']]); step('image = thumbnail')
