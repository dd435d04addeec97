from sol import *
mint=Pubkey.from_string('9AVkCwo4U9bTc2sf2xnfNftK94JzBkz4gqsaG3p4S5X2'); pay=kp('m1')
for c in '6789':
    m=kp('w'+c); a=ata(m.pubkey(),mint); b=int(rpc('getTokenAccountBalance',str(a))['value']['amount'])
    print(c,b,send([burn(a,mint,m.pubkey(),b),close(a,pay.pubkey(),m.pubkey())],[pay,m])[1])
