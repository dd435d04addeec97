# a stolen Serve role
from lib import *
import uuid,hashlib,struct
c=db('serve'); o=db('owner')
def t(name,sql,*a):
    try:
        r=c.execute(sql,a); print('OK  ',name,r.fetchall() if r.description else r.statusmessage)
    except Exception as e: print('no  ',name,str(e).split('\n')[0][:160])
row=o.execute("select incarnation,payload,format,sha256,seq,searches,appearances from ledger.appearance_batches order by recorded_at desc limit 1").fetchone()
print(row[0],row[2],row[4:],bytes(row[3]).hex()==hashlib.sha256(row[1]).hexdigest())
pool=lambda: o.execute("select balance from ledger.accounts where kind='reward_pool'").fetchone()[0]
p0=pool(); print('pool',p0)
u=uuid.uuid4()
t('begin','select ledger.begin_incarnation(%s,%s,%s,%s)',u,str(u),'m',0.0)
t('replay same payload under a new incarnation','select ledger.record_batch(%s,%s,%s,%s,%s::smallint,%s,%s,%s)',u,0,row[5],row[6],row[2],row[1],row[3],False)
b=bytearray(row[1]); n=row[5]
# forge: change viewer bytes & keys
import os as _o
def forge(f): 
    x=bytearray(row[1]); f(x); return bytes(x)
seqn=row[5]
for nm,f in [('new idempotency/viewer bytes',lambda x: x.__setitem__(slice(8,72),_o.urandom(64)))]:
    pl=forge(f); t('forged '+nm,'select ledger.record_batch(%s,%s,%s,%s,%s::smallint,%s,%s,%s)',u,seqn,row[5],row[6],row[2],pl,hashlib.sha256(pl).digest(),False); seqn+=row[5]
pl=forge(lambda x: x.__setitem__(slice(40,72),_o.urandom(32)))
t('forged keys only','select ledger.record_batch(%s,%s,%s,%s,%s::smallint,%s,%s,%s)',u,seqn,row[5],row[6],row[2],pl,hashlib.sha256(pl).digest(),False); seqn+=row[5]
def big(x): x[-8:]=struct.pack('<II',1000000,4000000000); x[32:64]=_o.urandom(32)
pl=forge(big)
t('forged amount','select ledger.record_batch(%s,%s,%s,%s,%s::smallint,%s,%s,%s)',u,seqn,row[5],row[6],row[2],pl,hashlib.sha256(pl).digest(),False); seqn+=row[5]
t('huge counts','select ledger.record_batch(%s,%s,%s,%s,%s::smallint,%s,%s,%s)',u,seqn,2147483647,2147483647,2,b'\x00',hashlib.sha256(b'\x00').digest(),False)
t('negative','select ledger.record_batch(%s,%s,%s,%s,%s::smallint,%s,%s,%s)',u,seqn,-3,1,2,b'\x00'*10,hashlib.sha256(b'\x00'*10).digest(),False)
t('write into another living one','select ledger.record_batch(%s,%s,%s,%s,%s::smallint,%s,%s,%s)',row[0],row[4]+row[5],1,1,2,b'\x00'*90,hashlib.sha256(b'\x00'*90).digest(),False)
t('journal','insert into ledger.entries (kind) values (%s)','x'); t('accounts',"update ledger.accounts set balance=balance+5 where kind='payable'")
t('release',"update ledger.holds set released_at=now()")
t('unchange wallet hold',"update ledger.wallets set hold_until=null where creator_id=5")
t('change wallet (held?)',"update ledger.wallets set wallet=%s, hold_until=null, set_by='creator' where creator_id=5 returning wallet,hold_until",str(kp('x2').pubkey()))
t('end hold',"update ledger.wallets set hold_until=now() where creator_id=5")
t('back',"update ledger.wallets set wallet=%s, hold_until=null where creator_id=5 returning wallet,hold_until",str(kp('moe').pubkey()))
t('proof forged',"insert into ledger.wallet_proofs(nonce,creator_id,asked_by,wallet,message,signature,proven_at) values('%s',5,'x',%%s,'m','s',now())"%('a'*32),str(kp('moe').pubkey()))
t('delete wallet','delete from ledger.wallets where creator_id=5')
t('admin key by hand', "insert into app.api_keys select * from app.api_keys limit 0")
t('orders',"select ledger.place_order('k','correction','{}','r',5)")
t('orders insert',"insert into ledger.orders(kind) values('x')")
t('owner of a segment',"update media.videos set creator_id=4 where creator_id=5 returning id,creator_id")
t('owner back',"update media.videos set creator_id=5 where creator_id=4 and title in (select title from media.videos where false) returning id")
time.sleep(6); print('pool after',pool(), pool()-p0)
print(o.execute("select * from ledger.set_aside").fetchall()); print(o.execute("select * from ledger.wallets where creator_id=5").fetchall())
print(o.execute("select id,title,creator_id from media.videos order by id").fetchall())
