# can another unix user take a port of the stack on another address/family, or shadow it (0.0.0.0 vs 127.0.0.1)?
import socket,os
print(os.getuid())
for p in (5433,6381,9001,8266,8900,8001,24500,6382):
  for fam,a in ((socket.AF_INET,'0.0.0.0'),(socket.AF_INET,'127.0.0.1'),(socket.AF_INET6,'::1'),(socket.AF_INET6,'::'),(socket.AF_INET,'127.0.0.2')):
    for reuse in (0,1):
      s=socket.socket(fam,socket.SOCK_STREAM)
      if reuse: s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1); s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEPORT,1)
      if fam==socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6,socket.IPV6_V6ONLY,1)
      try: s.bind((a,p)); s.listen(1); print(p,a,reuse,'BOUND')
      except OSError as e: pass
      s.close()
