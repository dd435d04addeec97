import json,urllib.request,base64,time,psycopg,http.client,urllib.parse,sys
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.hash import Hash
from solders.message import Message
from solders.transaction import Transaction
from solders.instruction import Instruction,AccountMeta
import struct
TOKEN_PROGRAM_ID=Pubkey.from_string('TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA'); ATAP=Pubkey.from_string('ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL'); SYS=Pubkey.from_string('11111111111111111111111111111111')
def ata(w,m): return Pubkey.find_program_address([bytes(w),bytes(TOKEN_PROGRAM_ID),bytes(m)],ATAP)[0]
A=AccountMeta
def i_transfer(src,m,dst,owner,amt): return Instruction(TOKEN_PROGRAM_ID,b'\x0c'+struct.pack('<QB',amt,6),[A(src,False,True),A(m,False,False),A(dst,False,True),A(owner,True,False)])
def i_close(acc,dst,owner): return Instruction(TOKEN_PROGRAM_ID,b'\x09',[A(acc,False,True),A(dst,False,True),A(owner,True,False)])
def i_setauth(acc,kind,new,owner): return Instruction(TOKEN_PROGRAM_ID,bytes([6,kind,1 if new else 0])+(bytes(new) if new else b''),[A(acc,False,True),A(owner,True,False)])
def i_ata(payer,w,m): return Instruction(ATAP,b'\x01',[A(payer,True,True),A(ata(w,m),False,True),A(w,False,False),A(m,False,False),A(SYS,False,False),A(TOKEN_PROGRAM_ID,False,False)])
def i_mint(m,dst,auth,amt): return Instruction(TOKEN_PROGRAM_ID,b'\x07'+struct.pack('<Q',amt),[A(m,False,True),A(dst,False,True),A(auth,True,False)])
def i_freeze(acc,m,auth): return Instruction(TOKEN_PROGRAM_ID,b'\x0a',[A(acc,False,True),A(m,False,False),A(auth,True,False)])
from solders.system_program import transfer as sol_transfer, TransferParams
D='/tmp/s4twice-x/'; S='/srv/twice/.pixr/secrets/'
keys=json.load(open(D+'keys.json'))
kp=lambda n:Keypair.from_bytes(bytes(keys[n]))
treasury=Keypair.from_bytes(bytes(json.load(open(S+'treasury.json')))); mintkp=Keypair.from_bytes(bytes(json.load(open(S+'mint.json')))); mauth=Keypair.from_bytes(bytes(json.load(open(S+'mint_authority.json'))))
mint=mintkp.pubkey()
URL='http://127.0.0.1:8899'
def rpc(m,*p,url=URL):
    r=json.load(urllib.request.urlopen(urllib.request.Request(url,json.dumps(dict(jsonrpc='2.0',id=1,method=m,params=list(p))).encode(),{'content-type':'application/json'})))
    if 'error' in r: return r
    return r['result']
def send(ixs,signers,payer=None):
    bh=Hash.from_string(rpc('getLatestBlockhash')['value']['blockhash'])
    payer=payer or signers[0]
    tx=Transaction(signers,Message.new_with_blockhash(ixs,payer.pubkey(),bh),bh)
    r=rpc('sendTransaction',base64.b64encode(bytes(tx)).decode(),{'encoding':'base64','skipPreflight':True})
    for _ in range(60):
        st=rpc('getSignatureStatuses',[str(tx.signatures[0])])['value'][0]
        if st and st.get('confirmationStatus')=='finalized': break
        time.sleep(.3)
    return r,st
def bal(w):
    r=rpc('getTokenAccountBalance',str(ata(w,mint))); return int(r['value']['amount']) if 'value' in r else None
def sol(w): return rpc('getBalance',str(w))['value']
def db(role='reader',user=None):
    sec={'owner':'postgres'}.get(role,'postgres_'+role); pw=open(S+sec).read().strip()
    return psycopg.connect(f"host=127.0.0.1 port=5432 dbname=pixr user={'pixr' if role=='owner' else 'pixr_'+role} password={pw}",autocommit=True)
K=open(S+'api_admin_key').read().strip()
def http_(method,path,body=None,src='127.0.0.1',headers={},key=None):
    c=http.client.HTTPConnection('127.0.0.1',8000,timeout=30,source_address=(src,0)); h=dict(headers)
    if key: h['Authorization']='Bearer '+key
    if body is not None: body=json.dumps(body); h['content-type']='application/json'
    c.request(method,path,body,h); r=c.getresponse(); b=r.read()
    try: b=json.loads(b)
    except Exception: pass
    return r.status,r.headers,b
