# link forging, media, headers, signed urls
from h import *
import re
u=r('GET','/v1/videos/13/segments','ana-ing').json()['segments'][0]
print(u['play_url'])
import urllib.parse as up
def link(p): x=r('GET',p); return x.status_code,x.headers.get('location','')[:150],x.text[:160]
base=u['play_url'].split('#')[0]; th=u['thumbnail_url']
p14=r('GET','/v1/videos/14/segments','ana-ing').json()['segments'][0]['play_url'].split('#')[0]
pub=r('GET','/v1/videos/16/segments').json()['segments'][0]['play_url'].split('#')[0]
print('pub',link(pub))
print('swap id',link(pub.replace('/16?','/14?')))
print('private=1 added',link(pub+'&private=1'))
print('id14 sig14 no private',link(p14.replace('&private=1','')))
print('0-padded',link(p14.replace('/videos/14','/videos/014')), link(p14.replace('/videos/14','/videos/%2014')))
print('expires more',link(re.sub(r'expires=\d+',lambda m:'expires='+str(int(m[0][8:])+9999),p14)))
print('expires dup',link(p14+'&expires=1999999999'))
print('thumb sig as video',link(th.replace('thumbnails/31','videos/13')))
print('path',link(p14.replace('/videos/14','/videos/14%2f..%2f13')))
for h in [{'Host':'evil.example'},{'X-Forwarded-Host':'evil.example'},{'Host':'evil.example:80','X-Forwarded-Proto':'https'}]:
    x=r('GET',pub,headers=h); print(h,x.status_code,x.headers.get('location'))
loc=r('GET',pub).headers['location']
for q in [loc, loc+'&response-content-type=text/html', loc.replace('response-content-type=video%2Fmp4','response-content-type=text%2Fhtml'), loc.replace('Expires=300','Expires=99999'), loc.split('?')[0], '/pixr/', '/pixr', '/pixr/?list-type=2','/pixr/uploads/..%2f','/pixr/../', loc+'&versionId=1', loc+'&uploads', loc+'&acl']:
    for m in ('GET',) :
        x=r(m,q,headers={'Range':'bytes=0-10'}); print(m,q[:60],q[-40:],x.status_code,dict((k,v) for k,v in x.headers.items() if k in('content-type','content-disposition','access-control-allow-origin','server','content-security-policy','x-content-type-options','cache-control','etag')),x.content[:160])
x=r('PUT',loc,content=b'x'); print('PUT',x.status_code,x.text[:150])
x=r('DELETE',loc); print('DELETE',x.status_code,x.text[:150])
x=r('POST',loc); print('POST',x.status_code,x.text[:150])
x=r('GET',loc,headers={'Origin':'http://evil.example','Range':'bytes=0-1'}); print({k:v for k,v in x.headers.items()})
x=r('GET','/v1/search?q=pie',headers={'Origin':'http://evil.example'}); print({k:v for k,v in x.headers.items()})
x=r('OPTIONS','/v1/keys',headers={'Origin':'http://evil.example','Access-Control-Request-Method':'POST','Access-Control-Request-Headers':'authorization'}); print(x.status_code,dict(x.headers),x.text[:100])
x=r('GET','/'); print(dict(x.headers))
x=r('GET','/docs'); print(dict(x.headers))
