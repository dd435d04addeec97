import json,httpx,base64,struct,sys,time
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.instruction import Instruction,AccountMeta
from solders.message import Message
from solders.transaction import Transaction
from solders.hash import Hash
R='http://127.0.0.1:8900'
def rpc(m,*p):
    return httpx.post(R,json={'jsonrpc':'2.0','id':1,'method':m,'params':list(p)},timeout=20).json()
eve=Keypair.from_bytes(bytes(json.load(open('/tmp/stranger/money/eve.json'))))
TOK=Pubkey.from_string('TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA'); ATAP=Pubkey.from_string('ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL')
MINT=Pubkey.from_string('67FDzL7DUMK9SadGgoiPH1WNWWkgTW3oqhpwt6FbpE9u')
TREAS=Pubkey.from_string('6i1NrxMFUkwHzzgQCamZyqPiHqCMbMXKKFMFKhjogC8Z')
def ata(o): return Pubkey.find_program_address([bytes(o),bytes(TOK),bytes(MINT)],ATAP)[0]
TATA=ata(TREAS)
def send(*ins,signers=(eve,)):
    bh=Hash.from_string(rpc('getLatestBlockhash',{'commitment':'processed'})['result']['value']['blockhash'])
    tx=Transaction(list(signers),Message.new_with_blockhash(list(ins),signers[0].pubkey(),bh),bh)
    r=rpc('sendTransaction',base64.b64encode(bytes(tx)).decode(),{'encoding':'base64','preflightCommitment':'processed'}); 
    time.sleep(.6)
    return r
def A(k,s=False,w=True): return AccountMeta(k,s,w)
def bal(k): r=rpc('getTokenAccountBalance',str(k),{'commitment':'processed'}); return r.get('result',{}).get('value',{}).get('amount')
def lam(k): return rpc('getBalance',str(k),{'commitment':'processed'})['result']['value']
def transfer(src,dst,n,o=eve): return Instruction(TOK,bytes([3])+struct.pack('<Q',n),[A(src),A(dst),A(o.pubkey(),True,False)])
def burn(src,n,o=eve): return Instruction(TOK,bytes([8])+struct.pack('<Q',n),[A(src),A(MINT),A(o.pubkey(),True,False)])
def close(acc,dst,o=eve): return Instruction(TOK,bytes([9]),[A(acc),A(dst),A(o.pubkey(),True,False)])
def setowner(acc,new,o=eve): return Instruction(TOK,bytes([6,2,1])+bytes(new),[A(acc),A(o.pubkey(),True,False)])
def approve(acc,dele,n,o=eve): return Instruction(TOK,bytes([4])+struct.pack('<Q',n),[A(acc),A(dele),A(o.pubkey(),True,False)])
EATA=ata(eve.pubkey())
