from sol import *
m=kp('m1'); mint=Pubkey.from_string('9AVkCwo4U9bTc2sf2xnfNftK94JzBkz4gqsaG3p4S5X2')
print(send([mk_ata(m.pubkey(),m.pubkey(),mint)],[m]))
