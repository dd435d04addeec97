from h import *
import httpx
pub=r('GET','/v1/videos?limit=100').json()['videos']; al=r('GET','/v1/videos?limit=100','admin').json()['videos']
for f,flt in (('',lambda w:True),('&creator_id=2',lambda w:w['creator_id']=='2'),('&creator_id=1',lambda w:w['creator_id']=='1')):
  z=r('GET','/v1/search?q=pie&explain=true&relevance_min_ppm=0&intent=typing'+f).json(); print(f,z['moments'][0]['explain'] if z['moments'] else None,'public',sum(w['segments'] for w in pub if flt(w)),'all',sum(w['segments'] for w in al if flt(w)))
d=httpx.Client(base_url='http://127.0.0.1:8266',timeout=8)
for p in ['/','/index.html','/healthz','/api/gcs_healthz','/api/local_raylet_healthz','/timezone','/api/healthz','/metrics','/api/sessions','/usage_stats_enabled','/cluster_metadata','/api/ray/version','/api/grafana_health','/api/prometheus_health','/api/prometheus/sd','/logs/','/api/v0/logs','/api/job_agent/jobs/','/api/packages/gcs/x','/events','/api/actors/kill','/static/js/','/memory_profile','/task/traceback','/worker/cpu_profile','/api/data/datasets/1','/api/train/v2/runs','/api/launch_job','/api/authentication_mode','/api/authenticate?token=x','/static/../../../etc/passwd','/logical/actors','/api/snapshot','/api/component_activities','/log_proxy?url=http://127.0.0.1:9568/metrics']:
  try: x=d.get(p); print(p,x.status_code,x.text[:60].replace('\n',' ')) if x.status_code!=401 else None
  except Exception as e: print(p,repr(e)[:80])
for port in (21366,21666):
  e=httpx.Client(base_url=f'http://127.0.0.1:{port}',timeout=8)
  for p in ['/','/api/job_agent/jobs/x/logs','/api/local_raylet_healthz','/get_or_create_runtime_env','/logs','/api/healthz']:
    try: x=e.get(p); print(port,p,x.status_code,x.text[:60]) if x.status_code!=401 else None
    except Exception as ex: print(port,p,repr(ex)[:60])
m=httpx.Client(base_url='http://127.0.0.1:9001',timeout=8)
for p,h in [('/minio/health/cluster',{}),('/pixr/',{'Origin':'http://evil.example'}),('/minio/download/pixr/thumbnails/14/19/0.webp?token=',{}),('/minio/zip?token=',{}),('/minio/v2/metrics/node',{}),('/pixr/thumbnails/14/19/0.webp',{}),('/pixr?policy',{}),('/minio/webrpc',{})]:
  x=m.get(p,headers=h); print(p,x.status_code,{k:v for k,v in x.headers.items() if 'access-control' in k},x.text[:130].replace('\n',''))
x=m.post('/minio/webrpc',headers={'User-Agent':'Mozilla/5.0','Origin':'http://evil.example','content-type':'application/json'},json={'id':1,'jsonrpc':'2.0','params':{},'method':'web.ListBuckets'}); print(x.status_code,x.text[:200],{k:v for k,v in x.headers.items() if 'access-control' in k})
for meth,par in [('web.ServerInfo',{}),('web.ListObjects',{'bucketName':'pixr','prefix':''}),('web.DiscoveryDoc',{}),('web.GetBucketPolicy',{'bucketName':'pixr'}),('web.PresignedGet',{'host':'h','bucket':'pixr','object':'ledger/','expiry':1})]:
  x=m.post('/minio/webrpc',headers={'User-Agent':'Mozilla/5.0','content-type':'application/json'},json={'id':1,'jsonrpc':'2.0','params':par,'method':meth}); print(meth,x.status_code,x.text[:160])
