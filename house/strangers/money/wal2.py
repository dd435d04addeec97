from h import *
from solders.keypair import Keypair
def mk(**k): return adm.post('/v1/keys',json=k).json()
k=mk(name='w19',scopes=['creator'],creator_id='19'); h=K(k['key'])
k20=mk(name='w20',scopes=['creator'],creator_id='20'); h20=K(k20['key'])
def chal(cid,w,h): return fresh().post(f'/v1/creators/{cid}/wallet/challenge',json={'wallet':w},headers=h).json()
def put(cid,w,h,ch=None,kp=None):
    b={'wallet':w}
    if ch: b['proof']={'nonce':ch['nonce'],'signature':str(kp.sign_message(ch['message'].encode()))}
    r=fresh().put(f'/v1/creators/{cid}/wallet',json=b,headers=h); j=r.json(); return r.status_code,{x:j.get(x) for x in('wallet','hold_until','proven','detail')}
X=Keypair(); w=str(X.pubkey())
print('19 change unproven',put(19,w,h)); print('19 then prove same',put(19,w,h,chal(19,w,h),X)); print('19 again unproven same',put(19,w,h))
# 20: first wallet unproven, then proven, change, change back
F=Keypair(); f=str(F.pubkey()); G=Keypair(); g=str(G.pubkey())
print('20 first unproven',put(20,f,h20)); print('20 other proven',put(20,g,h20,chal(20,g,h20),G)); print('20 back to first, proven',put(20,f,h20,chal(20,f,h20),F)); print('20 same',put(20,f,h20))
# 25: first unproven A, then second proven B within hold
k25=mk(name='w25',scopes=['creator'],creator_id='25'); h25=K(k25['key'])
print('25 first proven',put(25,f,h25,chal(25,f,h25),F)); print('25 change',put(25,g,h25)); print('25 back',put(25,f,h25,chal(25,f,h25),F))
# evechidi (manifest wallet = chidi's); confirm w/o proof
k21=mk(name='w21',scopes=['creator'],creator_id='21'); h21=K(k21['key']); print('21 confirm',put(21,'C4Qmxp7gz4ZukX4XfveADa6JQUPfY3EHLffbiHLWbM9d',h21))
time.sleep(3)
for i in (19,20,25): e=adm.get(f'/v1/creators/{i}/earnings').json(); print(i,{x:e[x] for x in ('wallet','payable','in_flight','paid')})
