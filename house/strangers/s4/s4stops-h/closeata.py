from sol import *
m=kp('m1'); mint=Pubkey.from_string('9AVkCwo4U9bTc2sf2xnfNftK94JzBkz4gqsaG3p4S5X2'); a=ata(m.pubkey(),mint)
if rpc('getBalance',str(m.pubkey()))['value']<10_000_000: airdrop(m.pubkey(),1_000_000_000); time.sleep(3)
print('treasury SOL',rpc('getBalance','AGQTe5KFE4thJXuUiQSemVmAyUjR2k7ZGi7Bqtvjg7Ch')['value'],'m1',rpc('getBalance',str(m.pubkey()))['value'])
b=int(rpc('getTokenAccountBalance',str(a))['value']['amount'])
s=Pubkey.from_string('5WWd74U1rMfdKTJ9T1i6CG4sFCHWPjkXB9T7GXXKanft')
print(b, send([burn(a,mint,m.pubkey(),b),close(a,m.pubkey(),m.pubkey())],[m]))
print('m1',rpc('getBalance',str(m.pubkey()))['value'])
