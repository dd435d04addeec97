import socket,struct,time,random,sys
from collections import Counter
def go(src,rst,rate,secs,delay,path='/v1/search?q=a+%d+thing'):
    C=Counter(); end=time.time()+secs; t0=time.time(); n=0
    while time.time()<end:
        s=socket.socket(); s.bind((src,0)); s.settimeout(5)
        if rst: s.setsockopt(socket.SOL_SOCKET,socket.SO_LINGER,struct.pack('ii',1,0))
        try:
            s.connect(('127.0.0.1',8000)); s.sendall(('GET %s HTTP/1.1\r\nHost: x\r\n\r\n'%(path%random.randrange(10**9) if '%d' in path else path)).encode())
            s.settimeout(max(delay,0.0005))
            try: d=s.recv(1000); C[d[9:12].decode() or 'eof']+=1
            except socket.timeout: C['cut']+=1
        except Exception as e: C[type(e).__name__]+=1
        s.close(); n+=1
        time.sleep(max(0,t0+n/rate-time.time()))
    s=socket.socket(); s.bind((src,0)); s.settimeout(9); s.connect(('127.0.0.1',8000)); s.sendall(b'GET /v1/feed HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'); d=b''
    while True:
        b=s.recv(9999)
        if not b: break
        d+=b
    print(src,'rst' if rst else 'fin',rate,secs,delay,path,dict(C),'then',d[9:12],d[-260:] if d[9:12]!=b'200' else '',flush=True)
go('127.0.0.41',1,30,6,.004); go('127.0.0.42',0,30,6,.004); go('127.0.0.43',1,30,6,.001); go('127.0.0.44',1,10,6,.004); go('127.0.0.45',1,30,6,.001,'/')
