from h import *
b=json.load(open('before.json'))
show(r('GET','/v1/videos/KhhItbkMSNC8BiJT_0MNtw'),900)
u=r('GET','/v1/videos/KhhItbkMSNC8BiJT_0MNtw/segments').json(); print(json.dumps(u)[:700])
for n in('p14','p13'):
  g=b[n]['segments'][0]
  for a in('thumbnail_url','play_url'):
    show(r('GET',g[a].split('#')[0]),300)
g=u['segments'][0]
for a in('thumbnail_url','play_url'):
    x=r('GET',g[a].split('#')[0]); show(x,300)
v=r('GET','/v1/videos/14/segments','ana-ing').json()['segments'][0]; print(v)
for a in('thumbnail_url','play_url'):
    x=r('GET',v[a].split('#')[0]); show(x,300)   # private, opened without key
