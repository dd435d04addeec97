import lib1
from lib1 import *
import threading, concurrent.futures as cf
a=settle()
def step(name):
    global a
    b=settle(); print('   credited',name,delta(a,b)); a=b
def S(c,q,h={},m='GET',**p):
    return c.request(m,'/v1/search',params={'q':q,**p},headers=h)
# repeat same address
c=fresh(); S(c,'leopard'); step('leopard 1'); S(c,'leopard'); S(c,'a leopard'); S(c,'LEOPARD',limit=5); step('repeat same addr')
# headers that change address
for h in [{'X-Forwarded-For':'9.9.9.9'},{'X-Forwarded-For':'9.9.9.9, 8.8.8.8'},{'Forwarded':'for=9.9.9.9'},{'X-Real-IP':'7.7.7.7'},{'True-Client-IP':'7.7.7.8'},{'CF-Connecting-IP':'7.7.7.9'},{'X-Pixr-Address':'1.2.3.4'},{'X-Pixr-Client':'1.2.3.4'},{'X-Client-IP':'1.2.3.4'},{'Cookie':'pixr_viewer=abc'},{'Cookie':'pixr_viewer=7ElZkbcUpnHD5ygOQCv8bQ.15cd17e42beed1cac2839320'},{'User-Agent':'other'},{'Accept-Language':'fr'},{'Idempotency-Key':'k1'},{'X-API-Key':'pixr_nonsense'},{'Authorization':'Bearer pixr_nonsense'}]:
    r=S(c,'leopard',h)
    if r.status_code!=200: print(h,r.status_code,r.text[:100])
step('header tricks same addr')
# cookies: mint many from one address
def cookie(c):
    r=c.get('/'); return r.headers.get('set-cookie','').split(';')[0]
c=fresh(); S(c,'leopard'); step('addr')
cs=[cookie(fresh()) for _ in range(5)]
c=cl('127.99.1.1',cookies=None); base=S(c,'leopard'); step('base')
for k in cs: c.cookies.clear(); S(c,'leopard',{'Cookie':k})
step('5 cookies, one address')
for k in cs: c=fresh(); S(c,'leopard',{'Cookie':k})
step('same 5 cookies, other addresses')
# sec-fetch
for h in [{'Sec-Fetch-Site':'cross-site'},{'Sec-Fetch-Site':'same-site'},{'Sec-Fetch-Site':'none'},{'Sec-Fetch-Site':'same-origin','Origin':'http://evil.example'},{'Origin':'http://evil.example'},{'Referer':'http://evil.example/x'},{'Origin':'null'},{'Sec-Fetch-Site':'CROSS-SITE'},{'Sec-Fetch-Site':'bogus','Origin':'http://evil'},{'Origin':'http://127.0.0.1:8001'},{'Origin':'http://127.0.0.1:9999'},{'Origin':'http://evil','Host':'evil'},{'Referer':''},{'Sec-Fetch-Site':''},{'Referer':'about:blank'},{'Sec-Fetch-Mode':'navigate','Sec-Fetch-Dest':'image'},{'Sec-Fetch-Site':'none','Sec-Fetch-Dest':'image'}]:
    c=fresh(); r=S(c,'leopard',h); step(str(h)+str(r.status_code))
