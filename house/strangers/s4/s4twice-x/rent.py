from lib import *
m=kp('mal')
dest=kp('moe')
print('mal',bal(m.pubkey()),sol(m.pubkey()),'moe',bal(dest.pubkey()),sol(dest.pubkey()))
# moe's wallet receives; fee payer: x1 airdropped
x=kp('x1'); print(rpc('requestAirdrop',str(x.pubkey()),100000000)); time.sleep(3); print('x1',sol(x.pubkey()))
b=bal(m.pubkey())
ix=[]
if b: ix.append(i_transfer(ata(m.pubkey(),mint),mint,ata(dest.pubkey(),mint),m.pubkey(),b))
ix.append(i_close(ata(m.pubkey(),mint),m.pubkey(),m.pubkey()))
print(send(ix,[x,m],x)); print('mal',bal(m.pubkey()),sol(m.pubkey()))
