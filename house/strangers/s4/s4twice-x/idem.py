from lib import *
import threading
q='/v1/search?limit=10&creator_id=5&q='+urllib.parse.quote('a '+json.load(open(D+'qs.json'))['5'][0][2:])
c=db()
def n(): return c.execute("select coalesce(sum(appearances),0),coalesce(sum(searches),0) from ledger.appearance_batches").fetchone()
def tot(): return c.execute("select balance from ledger.accounts where kind='reward_pool'").fetchone()[0]
def step(name,fs,par=True):
    time.sleep(3); a,b=n(),tot(); res=[]
    def run(f): res.append(f()[0])
    ts=[threading.Thread(target=run,args=(f,)) for f in fs]
    for t in ts: 
        t.start()
        if not par: t.join()
    for t in ts: t.join()
    time.sleep(5); print(name,res,'appearances/searches',[int(x-y) for x,y in zip(n(),a)],'paid out of pool',b-tot(),flush=True)
G=lambda src,**h: (lambda: http_('GET',q,src=src,headers={k.replace('_','-'):v for k,v in h.items()}))
P=lambda src,**h: (lambda: http_('POST','/v1/search',{'text':'a wallet','q':'x'},src=src))
step('baseline one viewer',[G('127.0.0.200')])
step('same viewer 8x at once',[G('127.0.0.200')]*8)
step('new viewer 8x at once',[G('127.0.0.201')]*8)
step('same idem key, 8 addresses, at once',[G('127.0.0.%d'%i,Idempotency_Key='k1') for i in range(210,218)])
step('X-Forwarded-For spoof 5',[G('127.0.0.201',X_Forwarded_For='9.9.9.%d'%i,Forwarded='for=9.9.9.%d'%i,X_Real_IP='9.9.8.%d'%i) for i in range(5)],False)
step('User-Agent change 3',[G('127.0.0.201',User_Agent='u%d'%i) for i in range(3)],False)
step('made up cookies 3',[G('127.0.0.201',Cookie='pixr_viewer=abc%d; viewer=xyz%d'%(i,i)) for i in range(3)],False)
s,h,b=http_('GET','/',src='127.0.0.201'); print(s,h.get_all('set-cookie'))
cks=[]
for i in range(4):
    s,h,b=http_('GET','/',src='127.0.0.201'); cks+= [x.split(';')[0] for x in (h.get_all('set-cookie') or [])]
print(cks)
if cks: 
    step('4 own cookies of one address',[G('127.0.0.201',Cookie=k) for k in cks],False)
    step('two cookies in one header',[G('127.0.0.201',Cookie=cks[0]+'; '+cks[1]),G('127.0.0.201',Cookie=cks[1]+'; '+cks[0]),G('127.0.0.201',Cookie='a=b; '+cks[0].upper())],False)
step('stream',[lambda: http_('GET',q.replace('/search?','/search/stream?'),src='127.0.0.220')])
step('stream then search',[G('127.0.0.220')])
step('intents',[lambda i=i: http_('GET',q+'&intent='+i,src='127.0.0.221') for i in ('typing','suggestion','feed','probe','search%20','SEARCH','')],False)
step('HEAD',[lambda: http_('HEAD',q,src='127.0.0.222')])
step('cross-site',[G('127.0.0.223',Sec_Fetch_Site='cross-site')])
step('relevance_min 0, blend',[lambda: http_('GET',q+'&relevance_min_ppm=0',src='127.0.0.201')])
step('duplicate q',[lambda: http_('GET',q+'&q=a+swan',src='127.0.0.224')])
s,h,b=http_('GET',q.replace('limit=10','limit=1').replace('creator_id=5&',''),src='127.0.0.225'); cur=b.get('next_cursor')
step('cursor x3 two viewers',[lambda: http_('GET','/v1/search?cursor='+urllib.parse.quote(cur),src='127.0.0.226')]*2+[lambda: http_('GET','/v1/search?cursor='+urllib.parse.quote(cur),src='127.0.0.227')] if cur else [])
