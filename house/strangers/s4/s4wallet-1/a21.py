from chainlib import *; from db import q
E=json.load(open('e.json'))
print('order list',pixr('payouts','order','list')[1][:900])
print(c.get(BASE+f"/v1/creators/{E['e4']['id']}/statement.csv",headers={'Authorization':'Bearer '+E['e4']['key']}).text)
print(q('owner',"select id,kind,owner,asset,balance from ledger.accounts order by id") if False else '')
q('jobs',"insert into media.creators(handle,name) values('sock','sock') on conflict do nothing")
sid=q('jobs',"select id from media.creators where handle='sock'")[0][0]
s,d=req('POST','/v1/keys',ADMIN,{'name':'k-sock','scopes':['creator'],'creator_id':sid}); k=d['key']; json.dump([sid,k],open('sock.json','w'))
show('sock names e3new',prove(sid,k,kp('w_e3new')))
for _ in range(25):
    time.sleep(2); 
    if req('GET',f'/v1/creators/{sid}/payouts',k)[1].get('total'): break
show('sock payouts',req('GET',f'/v1/creators/{sid}/payouts',k)[1]); show('sock earnings',req('GET',f'/v1/creators/{sid}/earnings',k)[1])
show('e3 earnings',req('GET',f"/v1/creators/{E['e3']['id']}/earnings",E['e3']['key'])[1])
print(c.get(BASE+f"/v1/creators/{sid}/statement.csv",headers={'Authorization':'Bearer '+k}).text)
print(pixr('payouts','stops')[1])
