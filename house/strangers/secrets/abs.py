import socket,re,os
print('uid',os.getuid())
names=[l.split()[-1] for l in open('/proc/net/unix') if '@' in l and l.split()[3]=='00010000']
print(names)
for n in names:
    if not n.startswith('@088cc'): continue
    for msg in (b'',b'GET / HTTP/1.0\r\n\r\n',b'\0'*16):
        s=socket.socket(socket.AF_UNIX,socket.SOCK_STREAM); s.settimeout(4)
        try:
            s.connect('\0'+n[1:]); print('connected',n,repr(msg))
            if msg: s.send(msg)
            d,anc,f,_=s.recvmsg(4096,socket.CMSG_SPACE(64)); print('got',d[:200],anc)
        except Exception as e: print(n,repr(e))
        s.close()
