from h import *
from solders.pubkey import Pubkey
from solders.instruction import Instruction, AccountMeta
from solders.transaction import Transaction
from solders.message import Message
from solders.hash import Hash
C=json.load(open('/tmp/s4wallet-1/chain.json')); M=Pubkey.from_string(C['M'])
TOK=Pubkey.from_string('TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA'); AT=Pubkey.from_string('ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL')
def ata(o,m=M): return Pubkey.find_program_address([bytes(o),bytes(TOK),bytes(m)],AT)[0]
def send(ixs,payer,*signers):
    bh=Hash.from_string(rpc('getLatestBlockhash')['result']['value']['blockhash'])
    tx=Transaction([payer,*signers],Message.new_with_blockhash(ixs,payer.pubkey(),bh),bh)
    return rpc('sendTransaction',base64.b64encode(bytes(tx)).decode(),{'encoding':'base64'})
def drop(p,l=1_000_000_000): return rpc('requestAirdrop',str(p),l)
def bal(o):
    r=rpc('getTokenAccountBalance',str(ata(o))); 
    return r.get('result',{}).get('value',{}).get('amount',r.get('error',{}).get('message'))
def setowner(acc,owner,new): return Instruction(TOK,bytes([6,2,1])+bytes(new),[AccountMeta(acc,False,True),AccountMeta(owner,True,False)])
def closeacc(acc,dest,owner): return Instruction(TOK,bytes([9]),[AccountMeta(acc,False,True),AccountMeta(dest,False,True),AccountMeta(owner,True,False)])
def transfer(src,dst,owner,n): return Instruction(TOK,bytes([3])+n.to_bytes(8,'little'),[AccountMeta(src,False,True),AccountMeta(dst,False,True),AccountMeta(owner,True,False)])
def prove(cid,key,k):
    s,ch=req('POST',f'/v1/creators/{cid}/wallet/challenge',key,{'wallet':str(k.pubkey())})
    return req('PUT',f'/v1/creators/{cid}/wallet',key,{'wallet':str(k.pubkey()),'proof':{'nonce':ch['nonce'],'signature':sign(k,ch['message'])}})
def fund(cid,n,**k): 
    from db import q
    b=json.dumps({'from':'reward_pool','to':f'payable:creator:{cid}','asset':'PIX','amount':n})
    return q('ledger',"select ledger.place_order(%s,'correction',%s::jsonb,'fund',86400)",ADMIN,b)
