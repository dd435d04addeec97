# paced open loop: rate secs lo hi mode(delay ms or 'full') path
import asyncio,sys,random,time,os,subprocess
from collections import Counter
rate=float(sys.argv[1]); secs=float(sys.argv[2]); lo=int(sys.argv[3]); hi=int(sys.argv[4]); mode=sys.argv[5]; path=sys.argv[6] if len(sys.argv)>6 else '/v1/search?q=a+%d+thing'
import resource; resource.setrlimit(resource.RLIMIT_NOFILE,(20000,20000))
C=Counter(); lat=[]
def src(i): 
    k=hi-lo; j=lo+i%k
    return '127.0.%d.%d'%(j//250, 1+j%250) if j>=250 else '127.0.0.%d'%j
async def one(i):
    t=time.time()
    try: r,w=await asyncio.wait_for(asyncio.open_connection('127.0.0.1',8000,local_addr=(src(i),0)),15)
    except Exception as e: C['conn '+type(e).__name__]+=1; return
    try:
        p=path%random.randrange(10**9) if '%d' in path else path
        w.write(('GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'%p).encode())
        if mode=='full':
            d=await asyncio.wait_for(r.read(),30); C[d[9:12].decode() or 'eof']+=1; lat.append(time.time()-t)
        elif mode=='fin':   # half close
            await w.drain(); w.write_eof(); d=await asyncio.wait_for(r.read(),30); C[d[9:12].decode() or 'eof']+=1
        else:
            await w.drain()
            try: d=await asyncio.wait_for(r.read(200),float(mode)/1000); C['early '+(d[9:12].decode() or 'eof')]+=1
            except asyncio.TimeoutError: C['abort']+=1
    except Exception as e: C[type(e).__name__]+=1
    finally: w.transport.abort()
def cpu():
    o={}
    for l in subprocess.run(['ps','-eo','pid,comm,args'],capture_output=True,text=True).stdout.splitlines()[1:]:
        f=l.split(None,2)
        k=None
        a=f[2] if len(f)>2 else ''
        for n in('SearchApi','QueryEncoder','haproxy','postgres','valkey','f2.py','quiet.py'):
            if n in a or n in f[1]: k=n
        k=k or 'rest'
        try:
            x=open('/proc/%s/stat'%f[0]).read().rsplit(')',1)[1].split(); o[(k,int(f[0]))]=(int(x[11])+int(x[12]))/100
        except Exception: pass
    return o
async def main():
    a=cpu(); t0=time.time(); n=0; ts=set()
    while time.time()-t0<secs:
        due=int((time.time()-t0)*rate)
        while n<due and len(ts)<6000:
            k=asyncio.create_task(one(n)); ts.add(k); k.add_done_callback(ts.discard); n+=1
        await asyncio.sleep(.005)
    el=time.time()-t0
    b=cpu(); s=Counter()
    for k,v in b.items(): s[k[0]+('' if k[0] in('postgres','rest','f2.py','quiet.py','valkey') else '@%d'%k[1])]+=v-a.get(k,0)
    print('sent',n,'%.0f/s'%(n/el),'cpu%',{k:round(100*v/el) for k,v in s.items() if v/el>.01},flush=True)
    if ts: await asyncio.wait(ts,timeout=30)
    lat.sort(); print(time.strftime('%T'),sys.argv[1:],dict(C),'p50 %.2f p99 %.2f'%(lat[len(lat)//2],lat[int(len(lat)*.99)]) if lat else '')
asyncio.run(main())
