from h import *
c=cl('127.88.88.88')
a=settle(); r=c.get('/v1/search',params={'q':'tokyo tower','explain':'true','creator_id':'37'}).json(); print([(m['creator'],m['segment_id'],m['video_id'],m['title'],m['start_ms'],m['relevance_ppm']) for m in r['moments'] if m['explain']['above_cut']]); b=settle(); print(delta(a,b))
