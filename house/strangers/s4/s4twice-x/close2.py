from lib import *
x=kp('x1'); m=kp('mal'); b=bal(m.pubkey()); a=ata(m.pubkey(),mint)
print(b,send([i_transfer(a,mint,ata(kp('moe').pubkey(),mint),m.pubkey(),b),i_close(a,m.pubkey(),m.pubkey())],[x,m]) if b is not None else '')
