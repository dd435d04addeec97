from h import *
def mk(**k): return adm.post('/v1/keys',json=k).json()
for cr in (['any'],['*'],['"any"'],['ana,chidi'],['Chidi'],['chidi ']):
    k=mk(name='t',scopes=['ingest'],creators=cr); h=K(k['key'])
    r=fresh().patch('/v1/videos/12',json={'language':'english'},headers=h); j=fresh().get('/v1/jobs',headers=h).json().get('total'); print(cr,k['creators'],r.status_code,r.json().get('detail'),j)
    adm.delete('/v1/keys/'+k['id'])
# key that asked
from solders.keypair import Keypair
ka=mk(name='one-18',scopes=['creator'],creator_id='20'); kb=mk(name='two-18',scopes=['creator'],creator_id='20'); print({x:ka[x] for x in ka if x!='key'})
kp=Keypair(); W=str(kp.pubkey())
c=fresh().post('/v1/creators/20/wallet/challenge',json={'wallet':W},headers=K(ka['key'])).json()
r=fresh().put('/v1/creators/20/wallet',json={'wallet':W,'proof':{'nonce':c['nonce'],'signature':str(kp.sign_message(c['message'].encode()))}},headers=K(kb['key'])); print('other-named key uses challenge',r.status_code,r.text[:200])
# search keys: are two keys with same name one viewer?
a=settle()
k1=mk(name='same',scopes=['search']);k2=mk(name='same',scopes=['search'])
fresh().get('/v1/search',params={'q':'leopard'},headers=K(k1['key'])); b=settle(); print('k1',delta(a,b)); a=b
fresh().get('/v1/search',params={'q':'leopard'},headers=K(k2['key'])); b=settle(); print('k2 same name',delta(a,b)); a=b
r=adm.post(f"/v1/keys/{k1['id']}/rotate",json={}).json(); fresh().get('/v1/search',params={'q':'leopard'},headers=K(r['key'])); b=settle(); print('rotated',delta(a,b)); a=b
# self-dealing: key with both search and creator/ingest
k3=mk(name='own3',scopes=['search','ingest'],creators=['chidi']); fresh().get('/v1/search',params={'q':'leopard'},headers=K(k3['key'])); b=settle(); print('search+ingest for chidi',delta(a,b)); a=b
k4=mk(name='own3b',scopes=['search'],creator_id='3'); print({x:k4.get(x) for x in('scopes','creator_id','creators','detail')}); 
if 'key' in k4: fresh().get('/v1/search',params={'q':'leopard'},headers=K(k4['key'])); b=settle(); print('search key of creator3',delta(a,b)); a=b
