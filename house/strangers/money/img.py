# image search with the moment's own thumbnail
import lib1
from lib1 import *
from PIL import Image
a=settle()
def step(name):
    global a
    b=settle(); print('   credited',name,delta(a,b),flush=True); a=b
r=fresh().get('/v1/search',params={'q':'leopard','intent':'typing'}).json()['moments'][0]
t=fresh().get(r['thumbnail_url'],follow_redirects=True); print(t.status_code,t.headers.get('content-type'),len(t.content))
im=base64.b64encode(t.content).decode()
c=fresh(); r=c.post('/v1/search',json={'image':im,'explain':True}); print(r.status_code,[(m['segment_id'],m['creator_id'],m['relevance_ppm'],m['explain']['above_cut']) for m in r.json().get('moments',[])][:6]); step('own thumbnail')
# same viewer, jittered picture, text again
for q in ['leopard','a leopard at night']: c.post('/v1/search',json={'image':im,'text':q})
step('again same viewer other query')
# segment 16/25 accordion: similar by other creators
c=fresh(); r=c.post('/v1/search',json={'segment_id':'16','text':'an accordion','explain':True}); print([(m['segment_id'],m['creator_id'],m['relevance_ppm'],m['explain']['above_cut']) for m in r.json().get('moments',[])][:6]); step('seg+text')
c=fresh(); r=c.post('/v1/search',json={'segment_id':'25','image':im,'text':'accordion','blend':{'image':0,'segment':0,'text':1},'explain':True}); print([(m['segment_id'],m['creator_id'],m['relevance_ppm'],m['explain']['above_cut']) for m in r.json().get('moments',[])][:6]); step('seg+img+text blend0')
# text that is only excluded / stop words + negative
for q in ['-x leopard','leopard -"artist"','"leopard" -leopards','leopard'*3,'leopard leopard leopard','LEOPARD!!!','"leopard','leopard -zebra -x -y']:
    o=oracle(text=q); r=fresh().get('/v1/search',params={'q':q,'explain':'true'}).json(); print(repr(q),[(m['segment_id'],m['relevance_ppm'],m['explain']['above_cut']) for m in r.get('moments',[])][:3])
step('variants of leopard')
