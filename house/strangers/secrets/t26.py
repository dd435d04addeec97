from h import *
for h in ['mallory','BRUNO','bruno ','brun\u043e','\uff42runo','bruno\u200b','any','ANY','2','FNVp0ScOQd-J_r7UuTNaVA','*','%']:
  n=r('POST','/v1/keys','admin',json={'name':'hh','scopes':['ingest'],'creators':[h]}); 
  if n.status_code!=201: print(repr(h),n.status_code,n.json().get('detail')); continue
  K['hh']=n.json()['key']
  vs=r('GET','/v1/videos?limit=100','hh').json()
  print(repr(h),n.json()['creators'],'sees non-public:',[(v['id'],v['creator']) for v in vs['videos'] if v['visibility']!='public'],'jobs',r('GET','/v1/jobs','hh').json().get('total'), '38:',r('GET','/v1/videos/38','hh').status_code, 'PATCH 6:',r('PATCH','/v1/videos/6','hh',json={'tags':['a']}).status_code)
  r('DELETE','/v1/keys/'+n.json()['id'],'admin')
# link of private as GET with different method/headers
s=r('GET','/v1/videos/38/segments','bruno-ing').json()['segments'][0]
print(s['play_url'])
# POST search with ana's key for moments of own private: not shown
print(r('POST','/v1/search','bruno-ing',json={'text':'Zqx acquisition ACME'}).json()['nothing_matches'])
# job show of other keys: ingestion for same creator by operator CLI
# admin-only intents on search key
for i in ('probe','admin','benchmark'): print(i,r('GET','/v1/search','search1',params={'q':'pie','intent':i}).status_code, r('GET','/v1/search','none',params={'q':'pie','intent':i}).status_code)
