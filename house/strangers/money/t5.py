import lib1
from lib1 import *
a=settle()
def step(name):
    global a
    b=settle(); print('   credited',name,delta(a,b),flush=True); a=b
def S(c,q,h={},m='GET',**p):
    return c.request(m,'/v1/search',params={'q':q,**p},headers=h)
c=cl('127.0.0.55'); r=S(c,'gorilla',explain='true'); print([(m['segment_id'],m['creator_id'],m['relevance_ppm'],m['explain']['above_cut']) for m in r.json()['moments']]); step('honest viewer of gorilla')
c=fresh(); S(c,'a gorilla'); step('honest other net')
S(fresh(),'gorilla',AH); step('admin key gorilla')
for i in (1,2,3):print(adm.get(f'/v1/creators/{i}/earnings').text)
c=fresh(); r=c.get('/v1/search',params={'q':'a','group_by':'video','relevance_min_ppm':0,'explain':'true'}); print([(m['segment_id'],m['creator_id'],m['relevance_ppm'],m['explain']['above_cut']) for m in r.json()['moments']]); step('group a')
