from fund2 import *
import redis
k2=json.load(open('keys2.json'))
r=redis.Redis(host='127.0.0.1',port=6384,password=open(D+'/.pixr/secrets/redis').read().strip())
kk=[k for k in r.keys('*') if k.endswith(b'live:earned')][0]; print(r.type(kk),r.hgetall(kk) if r.type(kk)==b'hash' else r.get(kk))
show(req('GET','/v1/creators/1/earnings/live',k2['ana'])[1])
if r.type(kk)==b'hash': r.hset(kk,'1','123456789')
show(req('GET','/v1/creators/1/earnings/live',k2['ana'])[1]); time.sleep(15); show(req('GET','/v1/creators/1/earnings/live',k2['ana'])[1]); show(req('GET','/v1/creators/1/earnings',k2['ana'])[1]['accrued'])
