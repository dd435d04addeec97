# generic connection tricks: mode n secs
import asyncio,sys,random,time
mode=sys.argv[1]; n=int(sys.argv[2]); secs=float(sys.argv[3]); lo=int(sys.argv[4]) if len(sys.argv)>4 else 20; hi=int(sys.argv[5]) if len(sys.argv)>5 else 180
from collections import Counter
C=Counter()
def src(i):
    span=hi-lo; return '127.%d.%d.%d'%(0 if lo<1000 else 1+ (i//60000),(0 if lo<1000 else (i//250)%250), (lo+i%span) if lo<1000 else 1+i%250)
end=time.time()+secs
async def opn(i):
    return await asyncio.wait_for(asyncio.open_connection('127.0.0.1',8000,local_addr=(src(i),0)),10)
H='Host: x\r\n'
async def w(i):
    while time.time()<end:
        try: r,wr=await opn(i)
        except Exception as e: C['conn '+type(e).__name__]+=1; await asyncio.sleep(.5); continue
        try:
            q='a %d thing %d'%(random.randrange(10**9),i)
            P='/v1/search?q='+q.replace(' ','+')
            if mode=='idle': await asyncio.wait_for(r.read(1),max(.1,end-time.time())); C['closed']+=1; await asyncio.sleep(.2)
            elif mode=='half':
                wr.write(b'GET /v1/search?q=cat HTTP/1.1\r\nHost: x\r\n')
                for _ in range(1000):
                    wr.write(b'X-a: b\r\n'); await wr.drain()
                    try:
                        d=await asyncio.wait_for(r.read(2000),1.5); C[d[9:12].decode() or 'eof']+=1; break
                    except asyncio.TimeoutError:
                        if time.time()>end: break
            elif mode=='slowbody':
                wr.write(('POST /v1/search HTTP/1.1\r\n'+H+'Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n{"query":{"text":"').encode())
                for _ in range(1000):
                    wr.write(b'a'*(20)); await wr.drain()
                    try:
                        d=await asyncio.wait_for(r.read(2000),1); C[d[9:12].decode() or 'eof']+=1; break
                    except asyncio.TimeoutError:
                        if time.time()>end: break
            elif mode=='bigslow':
                wr.write(('POST /v1/search HTTP/1.1\r\n'+H+'Content-Type: application/json\r\nContent-Length: 6000000\r\n\r\n{"image":"').encode())
                for _ in range(1000):
                    wr.write(b'a'*(20000)); await wr.drain()
                    try:
                        d=await asyncio.wait_for(r.read(2000),.3); C[d[9:12].decode() or 'eof']+=1; break
                    except asyncio.TimeoutError:
                        if time.time()>end: break
            elif mode=='cancel':
                wr.write(('GET %s HTTP/1.1\r\n%s\r\n'%(P,H)).encode()); await wr.drain(); await asyncio.sleep(random.random()*.03); wr.transport.abort(); C['abort']+=1; await asyncio.sleep(.02)
            elif mode=='stream':
                wr.write(('GET /v1/search/stream?q=%s HTTP/1.1\r\n%s\r\n'%(q.replace(' ','+'),H)).encode()); await wr.drain()
                d=await asyncio.wait_for(r.read(300),20); C[d[9:12].decode()]+=1
                await asyncio.sleep(3)   # do not read
            elif mode=='search':
                wr.write(('GET %s HTTP/1.1\r\n%sConnection: close\r\n\r\n'%(P,H)).encode())
                d=await asyncio.wait_for(r.read(),20); C[d[9:12].decode() or 'eof']+=1
            elif mode=='pipe':
                wr.write((('GET %s HTTP/1.1\r\n%s\r\n'%(P,H))*200).encode()); await wr.drain(); await asyncio.sleep(2); d=await r.read(100000); C['pipe %d'%d.count(b'HTTP/1.1 200')]+=1
            elif mode=='pipenoread':
                t=0
                while time.time()<end:
                    wr.write((('GET /openapi.json HTTP/1.1\r\n%s\r\n'%(H))*50).encode())
                    await asyncio.wait_for(wr.drain(),60); t+=1
                    if t>3: await asyncio.sleep(5)
            elif mode=='wrongkey':
                wr.write(('GET /v1/jobs HTTP/1.1\r\n%sAuthorization: Bearer pixr_f_%032d\r\nConnection: close\r\n\r\n'%(H,random.randrange(10**20))).encode())
                d=await asyncio.wait_for(r.read(),20); C[d[9:12].decode() or 'eof']+=1
            elif mode=='head':
                wr.write(('HEAD %s HTTP/1.1\r\n%sConnection: close\r\n\r\n'%(P,H)).encode())
                d=await asyncio.wait_for(r.read(),20); C[d[9:12].decode() or 'eof']+=1
            elif mode=='expect':
                wr.write(('POST /v1/search HTTP/1.1\r\n%sContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 500\r\n\r\n'%H).encode())
                while time.time()<end:
                    d=await asyncio.wait_for(r.read(3000),max(.1,end-time.time())); C[d[9:12].decode() or 'eof']+=1
                    if not d or not d.startswith(b'HTTP/1.1 100'): break
        except asyncio.TimeoutError: C['timeout']+=1
        except Exception as e: C[type(e).__name__]+=1; await asyncio.sleep(.1)
        finally:
            try: wr.transport.abort()
            except: pass
async def main():
    t=time.time(); await asyncio.gather(*(w(i) for i in range(n))); print(mode,n,secs,dict(C),'%.0fs'%(time.time()-t))
import resource; resource.setrlimit(resource.RLIMIT_NOFILE,(20000,20000))
asyncio.run(main())
