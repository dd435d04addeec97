import lib1
from lib1 import *
a=settle()
def step(name):
    global a
    b=settle(); print('   credited',name,delta(a,b),flush=True); a=b
c=fresh(follow_redirects=False)
r=c.get('/',params={'q':'leopard'},headers={'Sec-Fetch-Site':'cross-site','Sec-Fetch-Mode':'navigate','Sec-Fetch-Dest':'document','Referer':'https://evil.example/'}); print(r.status_code,r.headers.get('set-cookie'))
step('navigation itself')
r=c.get('/v1/search',params={'q':'leopard','limit':'20','intent':'search'},headers={'Sec-Fetch-Site':'same-origin','Sec-Fetch-Mode':'cors','Sec-Fetch-Dest':'empty','Referer':'http://127.0.0.1:8001/?q=leopard'}); print(r.status_code); step('fetch of the page opened by another site')
