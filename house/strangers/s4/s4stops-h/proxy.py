# a lying RPC node: proxy.py PORT UPSTREAM ; lies in /tmp/s4stops-h/lie.PORT (JSON: {"mode": ...}), re-read each request
import sys,json,os,time,threading,httpx
from http.server import BaseHTTPRequestHandler,ThreadingHTTPServer
P=int(sys.argv[1]); U=sys.argv[2]; F=f'/tmp/s4stops-h/lie.{P}'
C=httpx.Client(timeout=30)
log=open(f'/tmp/s4stops-h/proxy.{P}.log','a',buffering=1)
def lies():
    try: return json.load(open(F))
    except Exception: return {}
def walk(o,L):
    if isinstance(o,dict):
        for k,v in list(o.items()):
            if k=='slot' and isinstance(v,int) and 'slot_add' in L: o[k]=v+L['slot_add']
            else: walk(v,L)
    elif isinstance(o,list):
        for v in o: walk(v,L)
def one(req,res,L):
    m=req.get('method')
    if L.get('log'): log.write(json.dumps(req)[:400]+' -> '+json.dumps(res)[:400]+'\n')
    if 'only' in L and m not in L['only']: return res
    if m in L.get('error',{}): return {'jsonrpc':'2.0','id':req.get('id'),'error':L['error'][m]}
    if m in L.get('result',{}):
        return {'jsonrpc':'2.0','id':req.get('id'),'result':L['result'][m]}
    if m in L.get('sleep',{}): time.sleep(L['sleep'][m])
    if m=='simulateTransaction' and 'sim_err' in L and 'result' in res:
        res['result']['value']['err']=L['sim_err']; res['result']['value']['logs']=[]
    if m in('getAccountInfo','getMultipleAccounts') and 'owner' in L:
        v=res.get('result',{}).get('value'); vs=v if isinstance(v,list) else [v]
        for x in vs:
            if x: x['owner']=L['owner']
    if m in('getAccountInfo','getMultipleAccounts') and 'state' in L:  # token account frozen
        import base64
        v=res.get('result',{}).get('value'); vs=v if isinstance(v,list) else [v]
        for x in vs:
            if x and isinstance(x.get('data'),list):
                b=bytearray(base64.b64decode(x['data'][0]))
                if len(b)==165: b[108]=2; x['data'][0]=base64.b64encode(bytes(b)).decode()
    if m=='getSignatureStatuses' and 'status_err' in L and 'result' in res:
        res['result']['value']=[{'slot':res['result']['context']['slot'],'confirmations':None,'confirmationStatus':'finalized','err':L['status_err'],'status':{'Err':L['status_err']}} for _ in res['result']['value']]
    if m in L.get('add',{}) and isinstance(res.get('result'),int): res['result']+=L['add'][m]
    if m=='getLatestBlockhash' and 'lvbh_add' in L: res['result']['value']['lastValidBlockHeight']+=L['lvbh_add']
    if 'slot_add' in L: walk(res,L)
    return res
class H(BaseHTTPRequestHandler):
    protocol_version='HTTP/1.1'
    def do_POST(s):
        b=s.rfile.read(int(s.headers.get('content-length',0))); L=lies()
        if L.get('hang'): time.sleep(L['hang'])
        if L.get('drip'):
            s.send_response(200); s.send_header('content-type','application/json'); s.send_header('transfer-encoding','chunked'); s.end_headers()
            try:
                for _ in range(L['drip']): s.wfile.write(b'1\r\n \r\n'); s.wfile.flush(); time.sleep(1)
            except Exception: return
        j=json.loads(b)
        drop=L.get('dropsend') and any(x.get('method')=='sendTransaction' for x in (j if isinstance(j,list) else [j]))
        r=C.post(U,content=b,headers={'content-type':'application/json'})
        try: o=r.json()
        except Exception: o=None
        if o is not None:
            if isinstance(j,list): 
                by={x.get('id'):x for x in o}; o=[one(q,by[q.get('id')],L) for q in j if q.get('id') in by]
            else: o=one(j,o,L)
            out=L['raw'].encode() if 'raw' in L else json.dumps(o).encode()
        else: out=r.content
        if L.get('big'): out=b' '*L['big']+out
        s.send_response(r.status_code if not L.get('http') else L['http']); s.send_header('content-type','application/json'); s.send_header('content-length',str(len(out))); s.end_headers()
        try: s.wfile.write(out)
        except Exception: pass
    do_GET=do_POST
    def log_message(s,*a): pass
ThreadingHTTPServer(('127.0.0.1',P),H).serve_forever()
