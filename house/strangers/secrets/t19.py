from h import *
from s3x import *
import time
put('bruno-rows/manifest.jsonl',b'{"file":"s1.mp4","creator":"bruno","language":"zqxlangsecret","title":"T1"}\n{"file":"s2.mp4","creator":"bruno","visibility":"zqxvissecret"}\n{"file":"../zqx/s3.mp4","creator":"bruno"}\n{"file":"s4.mp4","creator":"bruno","wallet":"zqxwallet"}\n{"file":"s5.mp4","creator":"bruno","zqxcolumn":1}\n{"file":"s6.mp4","creator":"brun\xd0\xbe-secretclient"}\n{"file":"s7.mp4","creator":"newclient-acme"}\n{"title":"zqx no file", "creator":"bruno"}\n{"file":"s8.mp4","creator":["bruno","zqxlist"]}\n{broken zqxbroken json\n')
x=r('POST','/v1/jobs','none-ing',json={'source':'s3://pixr/mallory/','manifest':'s3://pixr/bruno-rows/manifest.jsonl'}); j1=x.json()['id']
# creators with only private videos
for v in r('GET','/v1/videos?limit=100','none-ing').json()['videos']:
  if v['creator']=='mallory': r('PATCH','/v1/videos/'+v['id'],'none-ing',json={'visibility':'private'})
time.sleep(2)
print('creators',[ (c_['handle'],c_['videos']) for c_ in r('GET','/v1/creators').json()['creators']])
for p in ['/v1/creators/12','/v1/creators/11','/v1/creators/99','/v1/videos?creator=mallory','/v1/videos?creator=nobodyatall','/v1/videos?creator=12','/v1/videos?creator=99']:
  x=r('GET',p); print(p,x.status_code,x.text[:180])
for h in [{'X-Request-Id':'abc"<x>\\u0000'},{'X-Request-Id':'A'*300},{'Authorization':'Bearer '+'é'*20},{'X-API-Key':'x'*3000}]:
  try: x=r('GET','/v1/jobs',headers=h); print(list(h),x.status_code,x.headers.get('x-request-id'),x.text[:150])
  except Exception as e: print(e)
for k,p in [('cr-ana','/v1/creators/2/earnings'),('cr-ana','/v1/creators/2/payouts'),('cr-ana','/v1/creators/FNVp0ScOQd-J_r7UuTNaVA/statement.csv'),('cr-ana','/v1/creators/2/earnings/live'),('cr-bruno','/v1/creators/1/statement.csv')]:
  x=r('GET',p,k); y=r('HEAD',p,k); print(k,p,x.status_code,y.status_code)
# public path leak
r('PATCH','/v1/videos/38','bruno-ing',json={'visibility':'public'}); time.sleep(1.5)
v=r('GET','/v1/videos/38').json(); s=r('GET','/v1/videos/38/segments').json()['segments'][0]
print('source_uri for strangers',v['source_uri'],'| play →',r('GET',s['play_url'].split('#')[0]).headers.get('location','')[:80])
r('PATCH','/v1/videos/38','bruno-ing',json={'visibility':'private'}); time.sleep(1.5)
# private link after revoke
n=r('POST','/v1/keys','admin',json={'name':'tmp3','scopes':['ingest'],'creators':['bruno']}).json(); K['tmp3']=n['key']
s=r('GET','/v1/videos/38/segments','tmp3').json()['segments'][0]; 
r('DELETE','/v1/keys/'+n['id'],'admin'); time.sleep(8)
print('key',r('GET','/v1/jobs','tmp3').status_code,'private link',r('GET',s['play_url'].split('#')[0]).status_code,'expires in s',int(s['play_url'].split('expires=')[1].split('&')[0])-int(time.time()))
for i in range(60):
  d=r('GET','/v1/jobs/'+j1,'none-ing').json()
  if d['status'] not in('queued','running'): break
  time.sleep(1.5)
print(d['status'],d['error']); 
for m in d['remarks']: print(m)
import redis
for pw in (None,'','pixr'):
  try: print(redis.Redis(port=6381,password=pw).info('server')['redis_version'])
  except Exception as e: print('redis',repr(e)[:100])
import psycopg
for u in ('postgres','pixr','pixr_serve','pixr_reader','root','pixr-postgres'):
  for p in ('','pixr','postgres'):
    try: psycopg.connect(host='127.0.0.1',port=5433,user=u,password=p,dbname='pixr',connect_timeout=3); print('PG IN',u,p)
    except Exception as e: m=str(e).strip().splitlines()[-1][-90:]
  print('pg',u,m)
