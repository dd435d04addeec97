import lib1
from lib1 import *
import socket
a=settle()
def step(name):
    global a
    b=settle(); print('   credited',name,delta(a,b),flush=True); a=b
def S(c,q,h={},m='GET',**p):
    return c.request(m,'/v1/search',params={'q':q,**p},headers=h)
S(fresh(),'gorilla',K(srch)); step('gorilla by search key'); 
c=cl('127.0.0.56'); ck=c.get('/').headers['set-cookie'].split(';')[0]; c.cookies.clear(); S(c,'gorilla',{'Cookie':ck}); step('gorilla honest cookie in shared net')
S(fresh(),'handbag'); step('control handbag')
# cross-site consumes repeat?
c=fresh(); S(c,'leopard',{'Sec-Fetch-Site':'cross-site'}); S(c,'leopard'); step('crosssite then own')
c=fresh(); S(c,'leopard',intent='typing'); S(c,'leopard',limit=1,relevance_min_ppm=0); step('typing then')
c=fresh(); S(c,'artist -leopard',relevance_min_ppm=0); step('low first (leopard below cut)'); S(c,'leopard'); step('then leopard')
# tiny relevance shown above cut then real
c=fresh(); r=c.post('/v1/search',json={'text':'leopard','segment_id':'24','blend':{'text':100,'segment':0},'explain':True}); print([(m['segment_id'],m['relevance_ppm'],m['explain']['above_cut']) for m in r.json()['moments']][:3]); step('least'); S(c,'leopard'); step('then full')
# raw PROXY / abs-form / dup host
def raw(b,addr=None):
    s=socket.socket(); s.bind((addr or '127.202.1.9',0)); s.connect(('127.0.0.1',8001)); s.settimeout(4); s.sendall(b); d=b''
    try:
        while len(d)<65536:
            x=s.recv(65536)
            if not x: break
            d+=x
    except Exception: pass
    return d
for b in [b'PROXY TCP4 9.9.9.9 127.0.0.1 4444 8001\r\nGET /v1/search?q=leopard HTTP/1.1\r\nHost: 127.0.0.1:8001\r\nConnection: close\r\n\r\n', b'\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x09\x09\x09\x09\x7f\0\0\1\x11\x5c\x1f\x41GET /v1/search?q=leopard HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n']:
    print(raw(b)[:60]); step('PROXY')
for i,hh in enumerate([b'X-HTTP-Method-Override: GET',b'X-Forwarded-Host: evil\r\nOrigin: http://evil',b'Origin: http://127.0.0.1:8001\r\nOrigin: http://evil',b'Origin: http://evil\r\nOrigin: http://127.0.0.1:8001',b'Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site',b'Origin: HTTP://127.0.0.1:8001',b'Origin: http://localhost:8001',b'Referer: http://127.0.0.1:8001@evil.com/']):
    d=raw(b'GET /v1/search?q=leopard HTTP/1.1\r\nHost: 127.0.0.1:8001\r\n'+hh+b'\r\nConnection: close\r\n\r\n','127.203.%d.9'%random.randrange(250)); print(hh,d[:30]); step('')
for h in ({'If-None-Match':'*'},):
    r=S(fresh(),'leopard',h); print(r.status_code); step('INM *')
