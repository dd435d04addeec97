from chain import *
import chain
from h import *
import threading
k=adm.post('/v1/keys',json={'name':'r37','scopes':['creator'],'creator_id':'37'}).json(); h=K(k['key'])
D=Keypair(); E2=Keypair(); w=str(D.pubkey())
for x in (D,E2): rpc('requestAirdrop',str(x.pubkey()),1000000000)
c=fresh().post('/v1/creators/37/wallet/challenge',json={'wallet':w},headers=h).json()
r=fresh().put('/v1/creators/37/wallet',json={'wallet':w,'proof':{'nonce':c['nonce'],'signature':str(D.sign_message(c['message'].encode()))}},headers=h); print(r.status_code,r.json().get('hold_until'))
DA=ata(D.pubkey())
for _ in range(30):
    time.sleep(.5)
    if bal(DA): break
print('first payout',bal(DA))
stop=[False]; n=[0,0]
def send0(ins,signer):
    bh=Hash.from_string(rpc('getLatestBlockhash',{'commitment':'processed'})['result']['value']['blockhash'])
    tx=Transaction([signer],Message.new_with_blockhash([ins],signer.pubkey(),bh),bh)
    return rpc('sendTransaction',base64.b64encode(bytes(tx)).decode(),{'encoding':'base64','skipPreflight':True})
def toggle():
    while not stop[0]:
        send0(setowner(DA,E2.pubkey(),D),D); time.sleep(.25); send0(setowner(DA,D.pubkey(),E2),E2); time.sleep(.25); n[0]+=1
th=threading.Thread(target=toggle); th.start()
e0={i:adm.get(f'/v1/creators/{i}/earnings').json() for i in (1,3,37)}
t0=time.time(); lag=0
for i in range(12):
    fresh().get('/v1/search',params={'q':'tokyo tower'}); fresh().get('/v1/search',params={'q':'handbag'}); time.sleep(2.5)
    e=adm.get('/v1/creators/37/earnings').json(); a1=adm.get('/v1/creators/1/earnings').json()
    print(round(time.time()-t0),37,{x:e[x] for x in('accrued','payable','in_flight','paid','held')},'ana',{x:a1[x] for x in('accrued','payable','in_flight','paid','held')},flush=True)
stop[0]=True; th.join(); print(n)
