from lib import *
x=kp('x1'); m=kp('mal'); print(sol(x.pubkey())); print(send([i_ata(x.pubkey(),m.pubkey(),mint)],[x])); print(bal(m.pubkey()))
