import sys
from sol import *
t=secret('treasury.json'); mint=Pubkey.from_string('9AVkCwo4U9bTc2sf2xnfNftK94JzBkz4gqsaG3p4S5X2'); th=kp('thief').pubkey()
print('SOL', send([transfer(TransferParams(from_pubkey=t.pubkey(),to_pubkey=th,lamports=5_000_000_000))],[t]))
if 'pix' in sys.argv: print('PIX', send([mk_ata(t.pubkey(),th,mint),tok_transfer(ata(t.pubkey(),mint),ata(th,mint),t.pubkey(),1000)],[t]))
