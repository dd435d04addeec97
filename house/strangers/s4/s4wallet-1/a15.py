from chainlib import *; from db import q
import hashlib
ids=json.load(open('ids.json')); keys=json.load(open('keys.json'))
def W(c): 
    r=q('owner','select wallet,set_by,hold_until,held_for,proof from ledger.wallets where creator_id=%s',c); return [str(x) for x in r[0]] if r else None
# D4 twice: two ghosts minted by serve
real=hashlib.sha256(ADMIN.encode()).digest(); print('hash is sha256(key):',bool(q('serve','select 1 from app.api_keys where hash=%s',real)))
G=[]
for g in ('ghost1','ghost2'):
    k='pixr_'+base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip('='); G.append(k)
    pid=q('serve',"insert into app.principals(name,created_at) values(%s,'2026-01-01') returning id",g+str(int(time.time())))[0][0]
    q('serve',"insert into app.api_keys(principal_id,hash,scopes,created_at) values(%s,%s,array['admin'],'2026-01-01')",pid,hashlib.sha256(k.encode()).digest())
show('http as ghost',req('GET','/v1/keys?limit=1',G[0])[0])
open('ghost1.key','w').write(G[0]); open('ghost2.key','w').write(G[1])
print(pixr('payouts','order','correction','--from','payable:creator:10','--to',f"payable:creator:{ids['att1']}",'--amount','1000','--reason','ghost','--key-file','/tmp/s4wallet-1/ghost1.key','--timeout','5'))
n=q('owner','select max(id) from ledger.orders')[0][0]
print(pixr('payouts','order','approve',n,'--key-file','/tmp/s4wallet-1/ghost2.key'))
print(q('owner','select id,carried_out,outcome,ordered_as,approved_as from ledger.orders where id=%s',n), 'att bal',bal(kp('att_w').pubkey()))
# E prep: fresh creators e1..e4
E={}
for h in ('e1','e2','e3','e4','e5'):
    q('jobs',"insert into media.creators(handle,name) values(%s,%s) on conflict do nothing",h,h)
    cid=q('jobs','select id from media.creators where handle=%s',h)[0][0]
    s,d=req('POST','/v1/keys',ADMIN,{'name':'k-'+h,'scopes':['creator'],'creator_id':cid}); E[h]=dict(id=cid,key=d['key'],kid=d['id'])
    show(h,prove(cid,d['key'],kp('w_'+h))[1].get('hold_until'))
s,d=req('POST','/v1/keys',ADMIN,{'name':'k-e1','scopes':['creator'],'creator_id':E['e1']['id']}); E['e1']['thief']=d['key']; E['e1']['thiefid']=d['id']
json.dump(E,open('e.json','w'))
print('backup',pixr('backup','/tmp/s4wallet-1/b1.dump'))
