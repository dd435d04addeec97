import sys
from sol import *
t=secret('treasury.json'); bal=rpc('getBalance',str(t.pubkey()))['value']; print('treasury SOL',bal)
left=int(sys.argv[1]); dst=kp('cold').pubkey()
print(send([transfer(TransferParams(from_pubkey=t.pubkey(),to_pubkey=dst,lamports=bal-left-5000))],[t]))
print(rpc('getBalance',str(t.pubkey()))['value'])
