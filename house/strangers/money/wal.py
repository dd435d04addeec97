# wallet proof attacks with creator keys for eveown(22,held) , evetok(18, no wallet), evetreas(19, no wallet)
from h import *
from solders.keypair import Keypair
import concurrent.futures as cf
def mk(cid): return adm.post('/v1/keys',json={'name':f'c{cid}','scopes':['creator'],'creator_id':cid}).json()
k18,k18b,k19=mk(18),mk(18),mk(19)
h18,h18b,h19=K(k18['key']),K(k18b['key']),K(k19['key'])
kp=Keypair(); kp2=Keypair(); W=str(kp.pubkey())
def chal(cid,w,h): return fresh().post(f'/v1/creators/{cid}/wallet/challenge',json={'wallet':w},headers=h).json()
def put(cid,w,h,ch=None,kp_=None,sig=None,nonce=None):
    b={'wallet':w}
    if ch: b['proof']={'nonce':nonce or ch['nonce'],'signature':sig or str(kp_.sign_message(ch['message'].encode()))}
    r=fresh().put(f'/v1/creators/{cid}/wallet',json=b,headers=h); return r.status_code,r.text[:330]
c1=chal(18,W,h18)
print(c1['message'])
print('other creator uses it',put(19,W,h19,c1,kp))
print('other key same creator',put(18,W,h18b,c1,kp))
print('wrong wallet',put(18,str(kp2.pubkey()),h18,c1,kp2))
print('wrong sig',put(18,W,h18,c1,kp2))
# victim: chidi's wallet claimed by 19 w/o proof
print('right',put(18,W,h18,c1,kp))
print('replay',put(18,W,h18,c1,kp))
# race: many wallets at once on creator 19 without wallet: first unproven + proven others
c=chal(19,W,h19)
kps=[Keypair() for _ in range(6)]
def go(i):
    if i==0: return put(19,W,h19,c,kp)
    return put(19,str(kps[i-1].pubkey()),h19)
with cf.ThreadPoolExecutor(7) as ex:
    for x in ex.map(go,range(7)): print('race',x)
print(adm.get('/v1/creators/19/earnings').text)
time.sleep(4)
for i in (18,19): print(adm.get(f'/v1/creators/{i}/earnings').text)
