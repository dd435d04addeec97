from fund2 import *
import redis
k2=json.load(open('keys2.json'))
g2=open('ghost2.key').read(); g1=open('ghost1.key').read()
for n in range(25,33):
    try: q('ledger',"select ledger.approve_order(%s,%s)",g2,n)
    except Exception as e: print(n,str(e).split('\n')[0])
# future creator id
mx=q('jobs',"insert into media.creators(handle,name) values('probe1','probe1') on conflict (handle) do update set name='probe1' returning id")[0][0]
fut=mx+1; n=fund2(fut,1234); time.sleep(4)
for r in q('owner','select id,body::text,carried_out,outcome from ledger.orders where id between 25 and 32 or id=%s order by id',n): print(r)
fc,fk=mkcreator('futureguy'); print('future id',fut,'created',fc,prove(fc,fk,kp('fut'))[1].get('hold_until'))
print(until(lambda:bal(kp('fut').pubkey())=='1234',12),bal(kp('fut').pubkey()))
# forged proof by serve
v=json.load(open('ids.json'))['vic5']; vk=json.load(open('keys.json'))['vic5']; A=str(kp('forge').pubkey()); nn=os.urandom(16).hex()
try:
    print('forged proof',q('serve',"insert into ledger.wallet_proofs(nonce,creator_id,asked_by,wallet,message,signature,proven_at) values(%s,%s,'k-vic5',%s,%s,%s,now())",nn,v,A,A+nn,'1'*64))
    print(q('serve',"insert into ledger.wallets(creator_id,wallet,set_by,proof) values(%s,%s,'creator',%s)",v,A,nn))
    print(q('owner','select hold_until,held_for,proof from ledger.wallets where creator_id=%s',v))
except Exception as e: print(str(e)[:200])
# ingest key folders
for src in ['s3://pixr/','s3://pixr/att1/','s3://pixr/att1/../ana/','s3://pixr/att10/','s3://pixr/ATT1/','s3://pixr//att1/','s3://pixr/att1%2f../ana/','s3://pixr/ledger/heads/']:
    s,d=req('POST','/v1/jobs',k2['i'],{'source':src,'creator':'ana'}); s2,d2=req('POST','/v1/jobs',k2['i'],{'source':src}); print(src,s,d.get('detail'),'|',s2,d2.get('detail',d2.get('id')))
# redis
r=redis.Redis(host='127.0.0.1',port=6384,password=open(D+'/.pixr/secrets/redis').read().strip())
try:
    ks=r.keys('*'); print('redis',len(ks),ks[:8]); 
except Exception as e: print('redis',e)
rc,o=pixr('audit','--full'); print(rc,[l for l in o.split('\n') if '✓' not in l])
