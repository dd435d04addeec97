from lib import *
import sys
x=kp('x2')
if not bal(x.pubkey()) and bal(x.pubkey())!=0: print(send([i_ata(treasury.pubkey(),x.pubkey(),mint)],[treasury]))
print('theft',send([i_transfer(ata(treasury.pubkey(),mint),mint,ata(x.pubkey(),mint),treasury.pubkey(),int(sys.argv[1]))],[treasury]))
