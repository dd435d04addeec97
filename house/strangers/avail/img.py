import io,base64,json,struct,zlib,time,http.client,sys
from PIL import Image
import numpy as np
def ch(t,d): return struct.pack('>I',len(d))+t+d+struct.pack('>I',zlib.crc32(t+d))
def png(w,h,bits,ct,idat,extra=b'',inter=0): return b'\x89PNG\r\n\x1a\n'+ch(b'IHDR',struct.pack('>IIBBBBB',w,h,bits,ct,0,0,inter))+extra+ch(b'IDAT',idat)+ch(b'IEND',b'')
def z(n): 
    c=zlib.compressobj(9); o=b''
    blk=b'\0'*1000000
    for _ in range(n//1000000+1): o+=c.compress(blk)
    return o+c.flush()
I={}
def sv(im,f,**k):
    b=io.BytesIO(); im.save(b,f,**k); return b.getvalue()
n=np.random.randint(0,255,(1500,1500,3),np.uint8)
I['jpg noise 1500']=sv(Image.fromarray(n),'JPEG',quality=85)
I['jpg prog 1500']=sv(Image.fromarray(n),'JPEG',quality=60,progressive=True)
I['webp lossless']=sv(Image.fromarray(n[:900,:900]),'WEBP',lossless=True)
I['webp 16383']=sv(Image.new('RGB',(16383,2000)),'WEBP')
I['jpg 8000 flat']=sv(Image.new('RGB',(8000,8000)),'JPEG',quality=1)
I['jpg 65500x1']=sv(Image.new('RGB',(65500,1)),'JPEG')
I['png 1x60000']=png(1,60000,8,2,zlib.compress(b'\0'*4*60000))
I['png 5000 flat']=png(5000,5000,8,2,z(5000*15001))
I['png 4000 interl']=png(4000,4000,8,6,z(4000*16001*2),inter=1)
I['png 2^31']=png(2**31-1,2**31-1,1,0,z(1000000))
I['png 0x0']=png(0,0,8,2,b'')
I['png 1bit 20000']=png(20000,20000,1,0,z(20000*2501))
I['png ztxt bomb']=png(10,10,8,2,zlib.compress(b'\0'*310),extra=ch(b'zTXt',b'a\0\0'+z(60_000_000)))
I['png iccp bomb']=png(10,10,8,2,zlib.compress(b'\0'*310),extra=ch(b'iCCP',b'a\0\0'+z(60_000_000)))
I['png many text']=png(10,10,8,2,zlib.compress(b'\0'*310),extra=ch(b'tEXt',b'a\0b')*20000)
I['apng']=sv(Image.new('RGB',(500,500)),'PNG',save_all=True,append_images=[Image.new('RGB',(500,500),(i,0,0)) for i in range(60)])
I['webp anim']=sv(Image.new('RGB',(400,400)),'WEBP',save_all=True,append_images=[Image.new('RGB',(400,400),(i*3,0,0)) for i in range(80)])
I['gif']=sv(Image.new('RGB',(50,50)),'GIF'); I['bmp']=sv(Image.new('RGB',(50,50)),'BMP'); I['tiff']=sv(Image.new('RGB',(50,50)),'TIFF'); I['eps']=b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n'
I['trunc jpg']=I['jpg noise 1500'][:50000]; I['jpg junk']=b'\xff\xd8\xff\xe0'+b'\0'*1000; I['svg']=b'<svg xmlns="http://www.w3.org/2000/svg"/>'
I['jpg exif']=I['jpg 65500x1'][:2]+b'\xff\xe1'+struct.pack('>H',60000)+b'Exif\0\0MM\0*'+b'\0\0\0\x08'+b'\xff'*(60000-2-6-8)+I['jpg 65500x1'][2:]
I['cmyk jpg']=sv(Image.new('CMYK',(900,900)),'JPEG'); I['16bit png']=sv(Image.fromarray((np.random.rand(300,300)*65535).astype(np.uint16)),'PNG')
I['one byte']=b'a'; I['empty']=b''
# progressive with many scans: repeat SOS
p=sv(Image.new('L',(3000,3000)),'JPEG',progressive=True,quality=5)
i=p.rfind(b'\xff\xda'); I['jpg scans x300']=p[:i]+p[i:-2]*300+p[-2:]
if __name__=='__main__':
    for j,(k,b) in enumerate(I.items()):
        bod=json.dumps({'image':base64.b64encode(b).decode()}); c=http.client.HTTPConnection('127.0.0.1',8000,timeout=30,source_address=('127.0.0.%d'%(60+j),0)); t=time.time()
        try:
            c.request('POST','/v1/search',bod,{'Content-Type':'application/json'}); r=c.getresponse(); d=r.read(); print('%-18s %7d B  %s %.2fs %s'%(k,len(bod),r.status,time.time()-t,d[:150] if r.status!=200 else ''),flush=True)
        except Exception as e: print(k,len(bod),repr(e),'%.2f'%(time.time()-t),flush=True)
    for k,v in {'b64 junk':'!!!!'*100,'b64 pad':'='*1000,'data:':'data:image/png;base64,'+base64.b64encode(I['16bit png']).decode(),'ws':' \n'*4000}.items():
        c=http.client.HTTPConnection('127.0.0.1',8000,timeout=30); c.request('POST','/v1/search',json.dumps({'image':v}),{'Content-Type':'application/json'}); r=c.getresponse(); print(k,r.status,r.read()[:120])
