import asyncio,random,json
from collections import Counter
async def one(k,q,src,C,ids):
    r,w=await asyncio.open_connection('127.0.0.1',8000,local_addr=(src,0))
    w.write(('GET /v1/search?q=%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nIdempotency-Key: %s\r\n\r\n'%(q,k)).encode()); d=await asyncio.wait_for(r.read(),30); w.close(); j=d.find(b'detail":'); C[d[9:12].decode()+' '+(d[j:j+70].decode('latin1') if d[9:12]!=b'200' else '')]+=1
async def m():
    C=Counter()
    for rnd in range(15):
        k='k%d'%random.randrange(10**9)
        await asyncio.gather(*(one(k,random.choice(['cat','dog','a+tent','a+%d'%i]),random.choice(['127.0.0.51','127.0.0.51','127.0.0.%d'%(50+i)]),C,0) for i in range(30)),return_exceptions=True)
    print(C)
asyncio.run(m())
