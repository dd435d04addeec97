# serve role: try to steer a wallet
from h import *; from db import q,con
ids=json.load(open('ids.json')); keys=json.load(open('keys.json'))
def W(c): 
    r=q('owner','select wallet,set_by,hold_until,held_for,proof from ledger.wallets where creator_id=%s',c); return [str(x) for x in r[0]] if r else None
def t(label,sql,*a):
    try: print(label,'->',q('serve',sql,*a))
    except Exception as e: print(label,'ERR',str(e).strip()[:160].replace('\n',' '))
v=ids['vic2']; kv=keys['vic2']; vw=kp('v2'); aw=kp('a2')
s,ch=req('POST',f'/v1/creators/{v}/wallet/challenge',kv,{'wallet':str(vw.pubkey())})
show(*req('PUT',f'/v1/creators/{v}/wallet',kv,{'wallet':str(vw.pubkey()),'proof':{'nonce':ch['nonce'],'signature':sign(vw,ch['message'])}}))
print(W(v))
A=str(aw.pubkey())
t('update wallet+no hold',"update ledger.wallets set wallet=%s,hold_until=null,held_for=null where creator_id=%s",A,v); print(W(v))
t('then held_for manifest',"update ledger.wallets set held_for='manifest' where creator_id=%s",v); print(W(v))
t('then hold null',"update ledger.wallets set hold_until=null where creator_id=%s",v); print(W(v))
t('set_by admin',"update ledger.wallets set set_by='admin',hold_until=null where creator_id=%s",v); print(W(v))
t('hold 2000',"update ledger.wallets set hold_until='2001-01-01' where creator_id=%s",v); print(W(v))
t('set_at old',"update ledger.wallets set set_at='2020-01-01' where creator_id=%s",v); print(W(v))
t('hold 2999',"update ledger.wallets set hold_until='2999-01-01' where creator_id=%s",v); print(W(v))
# proof
n=os.urandom(16).hex(); 
s,ch=req('POST',f'/v1/creators/{v}/wallet/challenge',kv,{'wallet':A}); print(s)
t('insert proof (real)',"insert into ledger.wallet_proofs(nonce,creator_id,asked_by,wallet,message,signature,proven_at) values(%s,%s,'k-vic2',%s,%s,%s,now())",ch['nonce'],v,A,ch['message'],sign(aw,ch['message']))
t('held no proof+proof',"update ledger.wallets set held_for='no proof',proof=%s,hold_until=null where creator_id=%s",ch['nonce'],v); print(W(v))
t('proof only',"update ledger.wallets set proof=%s where creator_id=%s",ch['nonce'],v); print(W(v))
t('change id',"update ledger.wallets set creator_id=%s where creator_id=%s",99,v)
t('delete',"delete from ledger.wallets where creator_id=%s",v)
t('back',"update ledger.wallets set wallet=%s where creator_id=%s",str(vw.pubkey()),v); print(W(v))
t('lock+drop',"lock table ledger.wallets in access exclusive mode")
print(q('owner','select * from ledger.wallet_changes where creator_id=%s',v))
