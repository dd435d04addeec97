import lib1
from lib1 import *
ids={c['id']:c['handle'] for c in adm.get('/v1/creators?limit=100').json()['creators']}; print({i:ascii(h) for i,h in ids.items()}, ids)
a=settle()
r=fresh().get('/v1/search',params={'q':'leopard','explain':'true'}).json(); print([(m['creator'],m['creator_id'],m['title'],m['relevance_ppm']) for m in r['moments'] if m['explain']['above_cut']])
b=settle(); print(delta(a,b)); a=b
# similar across creators: chidi's leopard -> stolen copy
s=[m for m in r['moments'] if m['creator_id']=='3'][0]['segment_id']
r=fresh().get(f'/v1/segments/{s}/similar').json(); print([(m['creator'],m['relevance_ppm'],m['title']) for m in r['moments']][:5]); b=settle(); print('similar(chidi leopard)',delta(a,b)); a=b
# group_by=video, creator filter
r=fresh().get('/v1/search',params={'q':'leopard','creator_id':[i for i,h in ids.items() if h=='ªna']}).json(); b=settle(); print('filtered to copy',delta(a,b)); a=b
# gorilla's exhausted segment: still nothing?
fresh().get('/v1/search',params={'q':'gorilla'}); b=settle(); print('gorilla',delta(a,b))
