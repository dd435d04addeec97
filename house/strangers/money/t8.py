import lib1
from lib1 import *
ids={c['handle']:c['id'] for c in adm.get('/v1/creators?limit=100').json()['creators']}
print(ids)
for h,i in ids.items():
    e=adm.get(f'/v1/creators/{i}/earnings').json(); print(h,i,e.get('wallet'),e.get('accrued'),e.get('held'))
S=lambda c,q:c.get('/v1/search',params={'q':q,'explain':'true'})
for q in ['backpack','broccoli','billed cap','cookie','fortune cookie','pie','cigarette','tokyo tower','statue of liberty','detective','globe','graduation cap','motorcycle','maple leaf','lotus position']:
    r=S(fresh(),q).json(); print(q,[(m['creator'],m['relevance_ppm']) for m in r['moments'] if m['explain']['above_cut']])
time.sleep(4)
for h,i in ids.items():
    e=adm.get(f'/v1/creators/{i}/earnings').json(); print(h,i,{k:e[k] for k in('accrued','payable','in_flight','paid','wallet','held')})
