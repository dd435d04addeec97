from h import *
import time
q='zqx purple elephant dentist 771'
a=r('GET','/v1/search','search1',params={'q':q,'intent':'typing'}); b=r('GET','/v1/search','none',params={'q':q,'intent':'typing'}); c_=r('GET','/v1/search','none',params={'q':q+'2','intent':'typing'}); e=r('GET','/v1/search','search2',params={'q':q})
for x in (a,b,c_,e): print(x.headers['x-pixr-cache'],x.headers['server-timing'])
print(r('GET','/v1/completions?q=zqx').text, r('GET','/v1/completions?q=hack').text, r('GET','/v1/completions?q=pur').text)
# takedown
v=r('GET','/v1/videos/15/segments').json()['segments'][0]; pl=v['play_url'].split('#')[0]; th=v['thumbnail_url']
lp=r('GET',pl).headers['location']; lt=r('GET',th).headers['location']
print('before',r('GET',lp,headers={'Range':'bytes=0-3'}).status_code,r('GET',lt).status_code)
x=r('DELETE','/v1/videos/15','bruno-ing'); print('takedown',x.status_code,x.text[:200])
t=time.time()
for i in range(14):
  print(round(time.time()-t,1),'video',r('GET','/v1/videos/15').status_code,'seg',r('GET','/v1/segments/'+v['segment_id']).status_code,'pl',r('GET',pl).status_code,'th',r('GET',th).status_code,'obj',r('GET',lp,headers={'Range':'bytes=0-3'}).status_code,r('GET',lt).status_code, 'search', '"15"' in r('GET','/v1/search?q=blowfish').text, 'sim',r('GET','/v1/segments/'+v['segment_id']+'/similar').status_code)
  time.sleep(1.5)
for k in ('admin','bruno-ing','cr-bruno','ana-ing'): x=r('GET','/v1/videos/15',k); print(k,x.status_code,x.text[:700])
