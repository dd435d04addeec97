from lib import *
import threading,subprocess
o=db(); pool=lambda: o.execute("select balance from ledger.accounts where kind='reward_pool'").fetchone()[0]
rp=open(S+'redis').read().strip()
import redis
r=redis.Redis(port=6379,password=rp)
qs=json.load(open(D+'qs.json'))
def s(cid,src,**h): return http_('GET','/v1/search?limit=10&creator_id=%s&q=%s'%(cid,urllib.parse.quote(qs[cid][0])),src=src,headers=h)[0]
def step(n,f):
    time.sleep(2); p=pool(); x=f(); time.sleep(4); print(n,x,'paid',p-pool(),flush=True)
try: flush=lambda: r.flushall(); r.ping()
except Exception as e: print('redis',e); r=redis.Redis(port=6379,username='default',password=rp); 
step('baseline 8',lambda: s('8','127.0.1.200'))
step('baseline 4',lambda: s('4','127.0.1.201'))
step('key k9 on 8 new viewer',lambda: s('8','127.0.1.202',**{'Idempotency-Key':'k9'}))
step('key k9 other search refused?',lambda: s('4','127.0.1.202',**{'Idempotency-Key':'k9'}))
step('flushall then k9 on other search',lambda: (r.flushall(),s('4','127.0.1.202',**{'Idempotency-Key':'k9'})))
step('flushall then k9 same search',lambda: (r.flushall(),s('8','127.0.1.202',**{'Idempotency-Key':'k9'})))
def race():
    out=[]; ts=[threading.Thread(target=lambda c=c: out.append(s(c,'127.0.1.203',**{'Idempotency-Key':'kR'}))) for c in ('4','8','5','4')]; [t.start() for t in ts]; [t.join() for t in ts]; return out
step('one key, four searches at once (sum of singles: see baselines)',race)
step('two key headers', lambda: raw('127.0.1.204')) if False else None
