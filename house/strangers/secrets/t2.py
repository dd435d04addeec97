from h import *
import time
# links from before
pub14=r('GET','/v1/videos/14/segments').json(); pub13=r('GET','/v1/videos/13/segments').json()
print(json.dumps(pub14)[:600])
s=r('GET','/v1/search?q=scarf&limit=5&highlight=true&facets=true').json()
json.dump(dict(p14=pub14,p13=pub13,s=s),open('before.json','w'))
cur=r('GET','/v1/search?q=scarf&limit=1').json()['next_cursor']
feedcur=r('GET','/v1/feed?limit=1').json()
lc=r('GET','/v1/videos?limit=1&creator=ana').json()['next_cursor']
show(r('PATCH','/v1/videos/14','ana-ing',json={'title':'zqxsecretpriv plan','visibility':'private','tags':['zqxtagpriv']}),200)
show(r('PATCH','/v1/videos/13','ana-ing',json={'title':'zqxsecretunl plan','visibility':'unlisted','tags':['zqxtagunl']}),200)
time.sleep(4)
PUB14='CKMyEh24QweBp8TqHn3EkQ';PUB13='KhhItbkMSNC8BiJT_0MNtw'
s14=pub14['segments'][0]['segment_id'] if 'segment_id' in pub14['segments'][0] else pub14['segments'][0]['id']
s13=pub13['segments'][0].get('segment_id') or pub13['segments'][0]['id']
print(s14,s13)
for k in ['none','search1','cr-bruno','bruno-ing','ana-ing','cr-ana','any-ing']:
  print('#####',k)
  for p in [f'/v1/videos/14','/v1/videos/13','/v1/videos/999',f'/v1/videos/{PUB14}',f'/v1/videos/{PUB13}','/v1/videos/AAAAAAAAAAAAAAAAAAAAAA',
    '/v1/videos/14/segments','/v1/videos/13/segments',f'/v1/videos/{PUB14}/segments',f'/v1/videos/{PUB13}/segments',
    f'/v1/segments/{s14}',f'/v1/segments/{s13}',f'/v1/segments/{PUB14}.0',f'/v1/segments/{PUB13}.0', f'/v1/segments/{s14}/similar',f'/v1/segments/{s13}/similar',f'/v1/segments/{PUB13}.0/similar',
    '/v1/search?q=zqxsecretpriv&relevance_min_ppm=0&facets=true','/v1/search?q=scarf&video_id=14&facets=true&relevance_min_ppm=0','/v1/search?q=pill&video_id=13&relevance_min_ppm=0&facets=true',f'/v1/search?q=pill&video_id={PUB13}&relevance_min_ppm=0&facets=true',
    '/v1/search?tags=zqxtagunl&q=a&relevance_min_ppm=0', f'/v1/search?segment_id={s14}',f'/v1/search?segment_id={s13}',f'/v1/search?segment_id={PUB13}.0',
    '/v1/videos?tag=zqxtagpriv','/v1/videos?tag=zqxtagunl','/v1/videos?visibility=private','/v1/videos?visibility=unlisted','/v1/videos?creator=ana','/v1/videos?limit=1','/v1/creators?limit=3','/v1/creators/1','/v1/completions?q=zqx','/v1/completions?q=scar','/v1/feed?limit=50','/media/videos/14','/media/videos/13','/media/videos/999',f'/media/thumbnails/{s14}',f'/media/thumbnails/99999']:
   for m in ('GET','HEAD'):
    x=r(m,p,k)
    leak=[w for w in ('zqxsecretpriv plan','zqxsecretunl plan','zqxtagpriv','zqxtagunl',PUB14,PUB13) if w in x.text]
    d=''
    try:
      j=x.json(); d={a:j[a] for a in('total','code','detail','nothing_matches','videos') if a in j and not isinstance(j[a],list)}
      if 'facets' in j: d['f']=j['facets'] and (j['facets']['moments'],j['facets']['videos'])
      for a in('moments','segments','creators'):
        if a in j and isinstance(j[a],list): d[a]=len(j[a])
    except Exception: pass
    if m=='GET' : g=x; print(x.status_code,p,d,leak)
    elif x.status_code!=g.status_code: print('   HEAD differs',x.status_code)
print('cursors'); show(r('GET',f'/v1/search?cursor={cur}'),800); show(r('GET',f"/v1/videos?cursor={lc}"),800)
