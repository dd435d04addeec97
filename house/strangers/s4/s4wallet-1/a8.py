from h import *; from db import q
from concurrent.futures import ThreadPoolExecutor
ids=json.load(open('ids.json')); keys=json.load(open('keys.json'))
V,Ak=ids['vic1'],ids['att1']; kv,ka=keys['vic1'],keys['att1']
# real creators: ana=1
s,d=req('POST','/v1/keys',ADMIN,{'name':'k-ana','scopes':['creator'],'creator_id':1}); kana=d.get('key'); 
s,d=req('POST','/v1/keys',ADMIN,{'name':'k-searcher','scopes':['search']}); ks=d['key']
s,d=req('POST','/v1/keys',ADMIN,{'name':'k-ing','scopes':['ingest'],'creators':['att1']}); ki=d.get('key'); show(s,d)
json.dump(dict(ana=kana,s=ks,i=ki),open('keys2.json','w'))
for path in ['earnings','earnings/live','statement.csv','payouts','']:
    p='/v1/creators/1/'+path if path else '/v1/creators/1'
    for n,k in [('none',None),('att',ka),('search',ks),('ingest',ki),('ana',kana)]:
        s,d=req('GET',p,k); print('T8',path,n,s,str(d)[:110])
# wallet verbs by other scopes
w=str(kp('att_w').pubkey())
for n,k in [('none',None),('search',ks),('ingest',ki),('admin',ADMIN)]:
    for m,p in [('POST','/wallet/challenge'),]:
        show('T8b',n,*req(m,f'/v1/creators/1{p}',k,{'wallet':w})[:1])
for n,k in [('none',None),('search',ks),('ingest',ki)]: show('T8c',n,req('PUT','/v1/creators/1/wallet',k,{'wallet':w})[0])
# T7 cursors
s,d=req('GET','/v1/creators/1/payouts?limit=1',kana); cur=d.get('next_cursor'); print('cursor',s,str(cur)[:60], d.get('total'))
for i,k in [(Ak,ka),(1,ka),(V,kv)]:
    r=c.get(BASE+f'/v1/creators/{i}/payouts',params={'cursor':cur or 'x'},headers={'Authorization':'Bearer '+k}); print('T7',i,r.status_code,r.text[:250])
r=c.get(BASE+'/v1/keys',params={'limit':1},headers={'Authorization':'Bearer '+ADMIN}); kc=r.json()['next_cursor']
r=c.get(BASE+'/v1/keys',params={'cursor':kc},headers={'Authorization':'Bearer '+ka}); print('T7 keys cursor att',r.status_code,r.text[:120])
r=c.get(BASE+'/v1/creators',params={'cursor':kc},headers={'Authorization':'Bearer '+ka}); print('T7 keys cursor at creators',r.status_code,r.text[:160])
# keys by creator
for m,p,b in [('GET','/v1/keys',None),('POST','/v1/keys',{'name':'z','scopes':['admin']}),('POST','/v1/keys/1/rotate',{}),('DELETE','/v1/keys/1',None)]:
    show('T8d',m,p,req(m,p,ka,b)[0])
# ETag oracle
r=c.get(BASE+'/v1/creators/1/earnings',headers={'Authorization':'Bearer '+kana}); et=r.headers.get('etag'); print(et,r.headers.get('cache-control'),r.headers.get('vary'))
if et: r=c.get(BASE+'/v1/creators/1/earnings',headers={'Authorization':'Bearer '+ka,'If-None-Match':et}); print('etag oracle',r.status_code)
# T6 key names race
res=[]
def mk(n,cid): return req('POST','/v1/keys',ADMIN,{'name':n,'scopes':['creator'],'creator_id':cid})
for i in range(10):
    n=f'dup{i}'
    with ThreadPoolExecutor(6) as p: rs=list(p.map(lambda j:mk(n,[V,Ak][j%2]),range(6)))
    who=set()
    for s,d in rs:
        if s==201:
            for cid in (V,Ak):
                e=req('GET',f'/v1/creators/{cid}/earnings',d['key'])[0]
                if e==200: who.add((d['creator_id'],cid))
    res.append(([r[0] for r in rs],who))
for r in res: print('T6',r)
for n in ['k-vic1 ','K-VIC1','k‐vic1','k-vic1\u200b','k-vi\u04411','\u202ek','k-vic1\u0301']:
    show('names',repr(n),*[req('POST','/v1/keys',ADMIN,{'name':n,'scopes':['creator'],'creator_id':Ak})[0]])
# dead name reused
s,d=mk('reuse',V); k1=d['key']; s,ch=req('POST',f'/v1/creators/{V}/wallet/challenge',k1,{'wallet':w}); req('DELETE',f"/v1/keys/{d['id']}",ADMIN)
s,d=mk('reuse',Ak); print('reuse for other creator',s,str(d)[:200]); 
if s==201: print('old key',req('GET',f'/v1/creators/{Ak}/earnings',k1)[0],req('GET',f'/v1/creators/{V}/earnings',k1)[0],'new',req('GET',f'/v1/creators/{V}/earnings',d['key'])[0])
