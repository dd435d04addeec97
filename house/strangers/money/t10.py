import lib1
from lib1 import *
import socket
a=settle()
def step(name):
    global a
    b=settle(); print('   credited',name,delta(a,b),flush=True); a=b
def S(c,q,h={},m='GET',**p):
    return c.request(m,'/v1/search',params={'q':q,**p},headers=h)
S(fresh(),'leopard',{'Host':'evil.example','Sec-Fetch-Site':'same-origin'}); step('Host evil same-origin')
S(fresh(),'leopard',{'Host':'evil.example','Origin':'https://evil.example'}); step('Host evil https origin')
# cancel before answer
def raw(b,addr,read=False):
    s=socket.socket(); s.bind((addr,0)); s.connect(('127.0.0.1',8001)); s.sendall(b)
    if not read: s.close(); return
for i in range(5):
    raw(b'GET /v1/search?q=leopard%20at%20night%20'+str(i).encode()+b' HTTP/1.1\r\nHost: 127.0.0.1:8001\r\n\r\n','127.210.%d.%d'%(random.randrange(250),i+2))
step('5 closed before answer (different addrs)')
# private video: eve key makes own video private right before cached search
k=adm.post('/v1/keys',json={'name':'e22','scopes':['creator'],'creator_id':'22'}).json(); h=K(k['key'])
v=[x for x in adm.get('/v1/videos?creator=22').json()['videos']]; vid=v[0]['id']
S(fresh(),'tokyo tower'); step('public')
print(fresh().patch(f'/v1/videos/{vid}',json={'visibility':'private'},headers=h).status_code)
for i in range(10): r=S(fresh(),'tokyo tower'); 
print([m['creator'] for m in r.json()['moments']]); step('private, 10 searches at once')
fresh().patch(f'/v1/videos/{vid}',json={'visibility':'unlisted'},headers=h); time.sleep(1.5)
seg=adm.get(f'/v1/videos/{vid}/segments').json()['segments'][0]
r=fresh().post('/v1/search',json={'segment_id':seg['public_id'],'text':'tokyo tower'}); print('unlisted seg',r.status_code)
r=S(fresh(),'tokyo tower',video_id=v[0]['public_id'],relevance_min_ppm=0); print([m['creator'] for m in r.json()['moments']]); step('unlisted filter by public id')
fresh().patch(f'/v1/videos/{vid}',json={'visibility':'public'},headers=h)
# Text negation/relevance: text parts by language & quotes
