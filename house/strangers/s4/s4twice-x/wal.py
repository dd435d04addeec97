from lib import *
import threading,base58
# creator keys for eve(6, no wallet, earned) and moe(5)
def mk(name,cid): 
    s,h,b=http_('POST','/v1/keys',{'name':name,'scopes':['creator'],'creator_id':cid},key=K); print('key',name,s,{k:v for k,v in b.items() if k!='key'} if s>=400 else ''); return b.get('key')
ke=mk('evekey%d'%time.time(),6); km=mk('moekey%d'%time.time(),5)
w=lambda n:str(kp(n).pubkey())
def put(cid,wal,key,proof=None):
    s,h,b=http_('PUT','/v1/creators/%s/wallet'%cid,{'wallet':wal,'proof':proof} if proof else {'wallet':wal},key=key); return s,b if s<300 else b.get('detail') or b
print('other creator key',put(5,w('x1'),ke))
for n,x in [('treasury',str(treasury.pubkey())),('mint',str(mint)),('treasury ATA',str(ata(treasury.pubkey(),mint))),('own ATA (off curve)',str(ata(kp('moe').pubkey(),mint))),('token program',str(TOKEN_PROGRAM_ID)),('system',str(SYS))]: print(n,put(6,x,ke))
ch=lambda cid,wal,key: http_('POST','/v1/creators/%s/wallet/challenge'%cid,{'wallet':wal},key=key)
s,h,c=ch(6,w('eve'),ke); print(s,c if s>=300 else c['message'])
sg=lambda n,m: base58.b58encode(bytes(kp(n).sign_message(m.encode()))).decode()
print('wrong signer',put(6,w('eve'),ke,{'nonce':c['nonce'],'signature':sg('moe',c['message'])}))
print('other wallet w/ proof',put(6,w('x1'),ke,{'nonce':c['nonce'],'signature':sg('eve',c['message'])}))
print('other creator w/ proof',put(5,w('eve'),km,{'nonce':c['nonce'],'signature':sg('eve',c['message'])}))
res=[]
pr={'nonce':c['nonce'],'signature':sg('eve',c['message'])}
ts=[threading.Thread(target=lambda: res.append(put(6,w('eve'),ke,pr))) for _ in range(4)]
ts+= [threading.Thread(target=lambda: res.append(put(6,w('x3'),ke)))]
[t.start() for t in ts]; [t.join() for t in ts]; print('race',[ (r[0],(r[1].get('wallet','')[:5],r[1].get('hold_until'),r[1].get('proven')) if r[0]<300 else str(r[1])[:90]) for r in res])
print('replay proof',put(6,w('eve'),ke,pr))
time.sleep(6); print('eve chain',bal(kp('eve').pubkey()),'x3',bal(kp('x3').pubkey()))
# two different first wallets... change A->B->A
s,h,b=http_('GET','/v1/creators/6/earnings',key=ke); print(b.get('wallet'),b.get('held'),b.get('payable'))
print(db().execute("select * from ledger.wallets where creator_id=6").fetchall())
s,h,c=ch(6,w('eve'),ke); print('back to eve proven',put(6,w('eve'),ke,{'nonce':c['nonce'],'signature':sg('eve',c['message'])}))
print('by number with zero / unicode',[http_('PUT','/v1/creators/%s/wallet'%urllib.parse.quote(x),{'wallet':w('x1')},key=ke)[0] for x in ('06','٦','6 ','+6','6.0')])
