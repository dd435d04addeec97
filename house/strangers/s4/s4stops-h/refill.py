from sol import *
c=kp('cold'); t=secret('treasury.json').pubkey()
print(send([transfer(TransferParams(from_pubkey=c.pubkey(),to_pubkey=t,lamports=rpc('getBalance',str(c.pubkey()))['value']-5000))],[c]))
