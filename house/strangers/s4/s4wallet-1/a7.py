from h import *; from db import q
from concurrent.futures import ThreadPoolExecutor
import random
ids=json.load(open('ids.json')); keys=json.load(open('keys.json'))
def W(c): 
    r=q('owner','select wallet,set_by,hold_until,held_for,proof from ledger.wallets where creator_id=%s',c); return [str(x) for x in r[0]] if r else None
v=ids['vic3'];kv=keys['vic3']
a,b=kp('v3a'),kp('v3b'); A,B=str(a.pubkey()),str(b.pubkey())
def put(cid,key,k,proof=True):
    if not proof: return req('PUT',f'/v1/creators/{cid}/wallet',key,{'wallet':str(k.pubkey())})
    s,ch=req('POST',f'/v1/creators/{cid}/wallet/challenge',key,{'wallet':str(k.pubkey())})
    if s!=201: return s,ch
    return req('PUT',f'/v1/creators/{cid}/wallet',key,{'wallet':str(k.pubkey()),'proof':{'nonce':ch['nonce'],'signature':sign(k,ch['message'])}})
print('T2 first unproven',put(v,kv,a,False)[0],W(v))
print('change to b proven',put(v,kv,b)[0],W(v))
print('same b unproven',put(v,kv,b,False)[0],W(v))
print('same b proven',put(v,kv,b)[0],W(v))
print('back to a proven',put(v,kv,a)[0],W(v))
print('a again proven',put(v,kv,a)[0],W(v))
print('a unproven',put(v,kv,a,False)[0],W(v))
print(pixr('payouts','order','correction','--from','reward_pool','--to',f'payable:creator:{v}','--amount','300000','--reason','x'))
print('stops with an ordinary change hold:',pixr('payouts','stops')); show(req('GET',f'/v1/creators/{v}/earnings',kv)[1])
# T3 races
base=100
made=[]
for i in range(12):
    hdl=f'race{i}'; q('jobs',"insert into media.creators(handle,name) values(%s,%s) on conflict do nothing",hdl,hdl)
    cid=q('jobs','select id from media.creators where handle=%s',hdl)[0][0]
    s,d=req('POST','/v1/keys',ADMIN,{'name':'k-'+hdl,'scopes':['creator'],'creator_id':cid}); k=d.get('key'); 
    s,ch=req('POST',f'/v1/creators/{cid}/wallet/challenge',k,{'wallet':A}); pr={'nonce':ch['nonce'],'signature':sign(a,ch['message'])}
    fs=[lambda: req('PUT',f'/v1/creators/{cid}/wallet',k,{'wallet':A,'proof':pr})[0] for _ in range(3)]
    fs+=[lambda: req('PUT',f'/v1/creators/{cid}/wallet',k,{'wallet':B})[0] for _ in range(3)]
    if i%2: fs+=[lambda: q('jobs','update media.creators set wallet=%s where id=%s',B,cid)]
    random.shuffle(fs)
    with ThreadPoolExecutor(8) as p: rs=list(p.map(lambda f:f(),fs))
    print('T3',cid,rs,W(cid),'B' if W(cid)[0]==B else 'A', len(q('owner','select 1 from ledger.wallet_proofs where creator_id=%s',cid)))
    made.append(cid)
json.dump(made,open('race.json','w'))
