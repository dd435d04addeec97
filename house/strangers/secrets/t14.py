from h import *
import time
n=r('POST','/v1/keys','admin',json={'name':'tmp','scopes':['ingest'],'creators':'any'}).json(); K['tmp']=n['key']
d=json.load(open('openapi.json')); print(json.dumps(d['components']['schemas']['Rotation'])[:500])
print('tmp',r('GET','/v1/jobs?limit=1','tmp').status_code)
seg=r('GET','/v1/videos/14/segments','tmp').json()['segments'][0]
ro=r('POST',f"/v1/keys/{n['id']}/rotate",'admin',json={'overlap_s':0}); print('rotate',ro.status_code,ro.text[:200]); 
if ro.status_code==422: ro=r('POST',f"/v1/keys/{n['id']}/rotate",'admin',json={}); print('rotate',ro.status_code,ro.text[:300])
t=time.time()
while time.time()-t<12:
  c1=r('GET','/v1/jobs?limit=1','tmp').status_code
  c2=r('POST','/v1/search','tmp',json={'text':'pie','intent':'typing'}).status_code
  print(round(time.time()-t,2),c1,c2,end='; ')
  if c1==401 and c2==401: break
  time.sleep(.3)
print()
nk=ro.json(); K['tmp2']=nk['key']
for _ in range(5): r('GET','/v1/jobs?limit=1','tmp2')
r('DELETE',f"/v1/keys/{nk['id']}",'admin'); t=time.time()
while time.time()-t<12:
  c1=r('GET','/v1/jobs?limit=1','tmp2').status_code; print(round(time.time()-t,2),c1,end='; ')
  if c1==401: break
  time.sleep(.3)
print('link by revoked key',r('GET',seg['play_url'].split('#')[0]).status_code)
e=r('GET','/v1/videos/14','ana-ing').headers['etag']; z=r('GET','/v1/videos/14','none',headers={'If-None-Match':e}); print('304 priv?',z.status_code); z=r('GET','/v1/videos/14','bruno-ing',headers={'If-None-Match':'*'}); print(z.status_code); z=r('GET','/v1/jobs','bruno-ing',headers={'If-None-Match':'*'}); print(z.status_code)
for s in ('38','31','99999','CKMyEh24QweBp8TqHn3EkQ.0','KhhItbkMSNC8BiJT_0MNtw.0','AAAAAAAAAAAAAAAAAAAAAA.0'):
  z=r('POST','/v1/events',json={'segment_id':s}); print('event',s,z.status_code,z.text[:160])
for q in ['q=pie&explain=true','q=pie&explain=true&creator_id=1','q=pie&explain=true&video_id=14','q=pie&explain=true&video_id=4','q=pie&explain=true&video_id=999','q=pie&explain=true&creator_id=1&relevance_min_ppm=0']:
  z=r('GET','/v1/search?'+q).json(); m=z.get('moments',[]); print(q,len(m),m[0].get('explain') if m else z.get('nothing_matches'),{k:z[k] for k in z if k not in('moments','next_cursor','query','took_ms')})
print('public segs', sum(v['segments'] for v in r('GET','/v1/videos?limit=100').json()['videos']), 'all', sum(v['segments'] for v in r('GET','/v1/videos?limit=100','admin').json()['videos']))
print(r('GET','/v1/creators').text[:900])
# timing oracle
import statistics as st
T={}
for _ in range(60):
  for p in ('/v1/videos/14','/v1/videos/13','/v1/videos/9999','/v1/segments/38','/v1/segments/99999','/v1/videos/CKMyEh24QweBp8TqHn3EkQ','/v1/videos/AAAAAAAAAAAAAAAAAAAAAA','/v1/segments/38/similar','/v1/segments/99999/similar'):
    a=time.perf_counter(); r('GET',p); T.setdefault(p,[]).append(time.perf_counter()-a)
for p in T: print(p,round(st.median(T[p])*1e3,2),round(min(T[p])*1e3,2))
