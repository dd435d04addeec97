from h import *; from db import q
from solders.pubkey import Pubkey
ids=json.load(open('ids.json')); keys=json.load(open('keys.json'))
Ak=ids['att1']; ka=keys['att1']
def pub(f):
    try: return str(Keypair.from_bytes(bytes(json.load(open(D+'/.pixr/secrets/'+f)))).pubkey())
    except Exception as e: print(f,e)
T=pub('treasury.json'); M=pub('mint.json'); MA=pub('mint_authority.json')
TOK=Pubkey.from_string('TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA'); AT=Pubkey.from_string('ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL')
def ata(o,m=M): return str(Pubkey.find_program_address([bytes(Pubkey.from_string(o)),bytes(TOK),bytes(Pubkey.from_string(m))],AT)[0])
json.dump(dict(T=T,M=M,MA=MA),open('chain.json','w'))
vw=str(kp('vic_w').pubkey())
cands={'treasury':T,'treasury ata':ata(T),'mint':M,'mint auth':MA,'victim ata':ata(vw),'token prog':str(TOK),'ata prog':str(AT),'sysvar rent':'SysvarRent111111111111111111111111111111111','sysvar clock':'SysvarC1ock11111111111111111111111111111111','vote':'Vote111111111111111111111111111111111111111','incinerator':'1nc1nerator11111111111111111111111111111111','memo':'MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr','33bytes':base58.b58encode(b'\1'*33).decode(),'31bytes':base58.b58encode(b'\1'*31).decode(),'wsol':'So11111111111111111111111111111111111111112'}
for n,h in [('y=p','ed'+'ff'*30+'7f'),('y=p+1','ee'+'ff'*30+'7f'),('1|sign','01'+'00'*30+'80'),('0|sign','00'*31+'80'),('ec|sign','ec'+'ff'*31),('y=p sign','ed'+'ff'*31),('y=p+1 sign','ee'+'ff'*31),('ff','ff'*32)]:
    cands['noncanon '+n]=base58.b58encode(bytes.fromhex(h)).decode()
for n,a in cands.items():
    s,d=req('POST',f'/v1/creators/{Ak}/wallet/challenge',ka,{'wallet':a}); print(n,a,s,d.get('detail','ACCEPTED'),d.get('hint'))
for row in q('owner','select * from ledger.own_addresses'): print(row)
print(rpc('getAccountInfo',M,{'encoding':'jsonParsed'}))
print(q('owner','select * from ledger.wallets')); print(q('owner','select id,handle,wallet from media.creators'))
