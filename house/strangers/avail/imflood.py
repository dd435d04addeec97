import asyncio,base64,json,sys,time,random
from collections import Counter
import img
from PIL import Image
import io,zlib,numpy as np
kind=sys.argv[1]; n=int(sys.argv[2]); secs=float(sys.argv[3]); lo=int(sys.argv[4]); hi=int(sys.argv[5]); fin=sys.argv[6]=='fin'
if kind=='png12': b=img.png(3990,3000,8,2,img.z(3000*(3990*3+1)))
elif kind=='png12g': b=img.png(3990,3000,8,6,img.z(3000*(3990*4+1)))
elif kind=='jpg64': b=img.I['jpg 8000 flat']
elif kind=='prog':
    p=img.sv(Image.new('L',(5000,5000)),'JPEG',progressive=True,quality=5); i=p.rfind(b'\xff\xda'); b=p[:i]+p[i:-2]*80+p[-2:]
elif kind=='small': b=img.sv(Image.fromarray(np.random.randint(0,255,(150,150,3),np.uint8)),'JPEG')
elif kind=='webpa': 
    x=io.BytesIO(); Image.new('RGB',(3400,3400)).save(x,'WEBP',lossless=True,method=6); b=x.getvalue()
bod=json.dumps({'image':base64.b64encode(b).decode()}).encode(); print(kind,len(bod))
C=Counter(); L=[]
end=time.time()+secs
async def w(i):
    k=0
    while time.time()<end:
        k+=1; t=time.time()
        try:
            r,wr=await asyncio.open_connection('127.0.0.1',8000,local_addr=('127.0.0.%d'%(lo+(i+k*7)%(hi-lo)),0))
            bb=b+random.randbytes(12) if kind!="png12" and kind!="png12g" else b[:33]+img.ch(b"tEXt",b"a\0"+b"%d"%random.randrange(10**12))+b[33:]; body=json.dumps({"image":base64.b64encode(bb).decode()}).encode()
            wr.write(b'POST /v1/search HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n'%len(body)+body); await wr.drain()
            if fin: await asyncio.sleep(.03); C['fin']+=1
            else:
                d=await asyncio.wait_for(r.read(),30); j=d.find(b'detail":'); C[d[9:12].decode()+(' '+d[j+8:j+45].decode('latin1') if d[9:12]!=b'200' else '')]+=1; L.append(time.time()-t)
            wr.close()
        except Exception as e: C[type(e).__name__]+=1; await asyncio.sleep(.05)
async def m(): await asyncio.gather(*(w(i) for i in range(n)))
asyncio.run(m()); L.sort(); print(kind,dict(C),'p50 %.2f'%(L[len(L)//2]) if L else '')
