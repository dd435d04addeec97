import os, json, sys, base64, time, subprocess, threading
import httpx, base58
from solders.keypair import Keypair
D='/srv/wallet'
def status():
    return json.load(open('/tmp/s4wallet-1/addr.json'))
A=status() if os.path.exists('/tmp/s4wallet-1/addr.json') else {}
BASE=A.get('serve','http://127.0.0.1:8000'); RPC=A.get('rpc','http://127.0.0.1:8899')
ADMIN=open(D+'/.pixr/secrets/api_admin_key').read().strip() if os.path.exists(D+'/.pixr/secrets/api_admin_key') else ''
c=httpx.Client(timeout=60)
def req(m,p,key=ADMIN,body=None,headers=None,raw=None,**kw):
    h=dict(headers or {})
    if key: h['Authorization']='Bearer '+key
    r=c.request(m,BASE+p,headers=h,json=body,content=raw,**kw) if body is not None else c.request(m,BASE+p,headers=h,content=raw,**kw)
    try: d=r.json()
    except Exception: d=r.text[:300]
    return r.status_code,d
def show(*a): print(*[json.dumps(x,ensure_ascii=False)[:900] if isinstance(x,(dict,list)) else x for x in a],flush=True)
def pixr(*a,timeout=200,config='configs/demo.toml',env=None):
    r=subprocess.run(['nice','-n','5',D+'/pixr','--config',config,*map(str,a)],capture_output=True,text=True,timeout=timeout,cwd=D,env={**os.environ,**(env or {})})
    return r.returncode,(r.stdout+r.stderr).strip()
def rpc(method,*params,url=None):
    return c.post(url or RPC,json=dict(jsonrpc='2.0',id=1,method=method,params=list(params))).json()
def kp(name):
    f=f'/tmp/s4wallet-1/kp_{name}.json'
    if os.path.exists(f): return Keypair.from_bytes(bytes(json.load(open(f))))
    k=Keypair(); json.dump(list(bytes(k)),open(f,'w')); return k
def sign(k,msg): return str(k.sign_message(msg.encode() if isinstance(msg,str) else msg))
def mkkey(name,*a):
    rc,o=pixr('keys','create',name,*a,'--json'); 
    try: return json.loads(o)
    except Exception: print('mkkey',rc,o); raise
def challenge(cid,addr,key): return req('POST',f'/v1/creators/{cid}/wallet/challenge',key,{'address':addr})
