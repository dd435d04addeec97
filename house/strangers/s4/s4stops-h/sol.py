import json,sys,time,base64,httpx,os
sys.path=[p for p in sys.path if p not in('/srv/stops',)]
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.hash import Hash
from solders.instruction import Instruction, AccountMeta
from solders.message import Message
from solders.transaction import Transaction
from solders.system_program import transfer, TransferParams
RPC=os.environ.get('RPC','http://127.0.0.1:8900')
TOK=Pubkey.from_string('TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA')
ATAP=Pubkey.from_string('ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL')
SYS=Pubkey.from_string('11111111111111111111111111111111')
def rpc(m,*p):
    r=httpx.post(RPC,json=dict(jsonrpc='2.0',id=1,method=m,params=list(p)),timeout=20).json()
    if 'error' in r: raise Exception(r['error'])
    return r['result']
def kp(f):
    f='/tmp/s4stops-h/'+f+'.key'
    if os.path.exists(f): return Keypair.from_bytes(bytes(json.load(open(f))))
    k=Keypair(); json.dump(list(bytes(k)),open(f,'w')); return k
def secret(n):
    j=json.load(open('/srv/stops/.pixr/secrets/'+n))
    if isinstance(j,dict): j=j.get('key') or j.get('secret') or j
    return Keypair.from_bytes(bytes(j))
def ata(o,m): return Pubkey.find_program_address([bytes(o),bytes(TOK),bytes(m)],ATAP)[0]
def send(ixs,signers,payer=None,skip=True):
    bh=Hash.from_string(rpc('getLatestBlockhash',{'commitment':'finalized'})['value']['blockhash'])
    t=Transaction.new_signed_with_payer(ixs,(payer or signers[0]).pubkey(),signers,bh)
    s=rpc('sendTransaction',base64.b64encode(bytes(t)).decode(),{'encoding':'base64','skipPreflight':skip})
    for _ in range(100):
        v=rpc('getSignatureStatuses',[s],{'searchTransactionHistory':True})['value'][0]
        if v and v.get('confirmationStatus') in('confirmed','finalized'): return s,v.get('err')
        time.sleep(.1)
    return s,'timeout'
def airdrop(pk,n): return rpc('requestAirdrop',str(pk),n)
def mk_ata(payer,owner,mint): return Instruction(ATAP,bytes([1]),[AccountMeta(payer,True,True),AccountMeta(ata(owner,mint),False,True),AccountMeta(owner,False,False),AccountMeta(mint,False,False),AccountMeta(SYS,False,False),AccountMeta(TOK,False,False)])
def tok_transfer(src,dst,owner,n): return Instruction(TOK,bytes([3])+n.to_bytes(8,'little'),[AccountMeta(src,False,True),AccountMeta(dst,False,True),AccountMeta(owner,True,False)])
def mint_to(mint,dst,auth,n): return Instruction(TOK,bytes([7])+n.to_bytes(8,'little'),[AccountMeta(mint,False,True),AccountMeta(dst,False,True),AccountMeta(auth,True,False)])
def close(acc,dst,owner): return Instruction(TOK,bytes([9]),[AccountMeta(acc,False,True),AccountMeta(dst,False,True),AccountMeta(owner,True,False)])
def set_auth(acc,kind,new,owner): return Instruction(TOK,bytes([6,kind])+(bytes([1])+bytes(new) if new else bytes([0])),[AccountMeta(acc,False,True),AccountMeta(owner,True,False)])
def freeze(acc,mint,auth): return Instruction(TOK,bytes([10]),[AccountMeta(acc,False,True),AccountMeta(mint,False,False),AccountMeta(auth,True,False)])
def thaw(acc,mint,auth): return Instruction(TOK,bytes([11]),[AccountMeta(acc,False,True),AccountMeta(mint,False,False),AccountMeta(auth,True,False)])
def burn(acc,mint,owner,n): return Instruction(TOK,bytes([8])+n.to_bytes(8,'little'),[AccountMeta(acc,False,True),AccountMeta(mint,False,True),AccountMeta(owner,True,False)])
