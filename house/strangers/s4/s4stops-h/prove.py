from sol import *
import base58,json,sys
A=open('/srv/stops/.pixr/secrets/api_admin_key').read().strip(); B='http://127.0.0.1:8001'
for c in sys.argv[1:]:
    k=kp('w'+c); w=str(k.pubkey())
    h={'Authorization':'Bearer '+A}
    r=httpx.post(f'{B}/v1/creators/{c}/wallet/challenge',json={'wallet':w},headers=h,timeout=20); print(r.status_code,r.text[:150])
    j=r.json(); s=str(k.sign_message(j['message'].encode()))
    r=httpx.put(f'{B}/v1/creators/{c}/wallet',json={'wallet':w,'proof':{'nonce':j['nonce'],'signature':s}},headers=h,timeout=20); print(r.status_code,r.text[:300])
