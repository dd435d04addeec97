import sys,json,urllib.request,http.server,socketserver,time
port=int(sys.argv[1]); name=sys.argv[2]; seen={}
def mode():
    try: return json.load(open('/tmp/s4twice-x/lie.json')).get(name,[])
    except Exception: return []
class H(http.server.BaseHTTPRequestHandler):
    protocol_version='HTTP/1.1'
    def log_message(self,*a): pass
    def do_POST(self):
        raw=self.rfile.read(int(self.headers.get('content-length',0))); q=json.loads(raw); M=mode()
        qs=q if isinstance(q,list) else [q]; outs=[]
        for x in qs:
            m=x['method']; seen[m]=seen.get(m,0)+1
            if 'dead' in M: self.send_response(503); self.send_header('content-length','0'); self.end_headers(); return
            if m=='sendTransaction' and 'dropsend' in M:
                import base64
                from solders.transaction import VersionedTransaction
                try: sig=str(VersionedTransaction.from_bytes(base64.b64decode(x['params'][0])).signatures[0])
                except Exception as e: sig=''
                outs.append({'jsonrpc':'2.0','id':x['id'],'result':sig}); continue
            r=json.load(urllib.request.urlopen(urllib.request.Request('http://127.0.0.1:8899',json.dumps(x).encode(),{'content-type':'application/json'})))
            try:
                if m=='sendTransaction' and 'senderr' in M: r={'jsonrpc':'2.0','id':x['id'],'error':{'code':-32002,'message':'Transaction simulation failed: Blockhash not found','data':{'err':'BlockhashNotFound'}}}
                if m=='getSignatureStatuses' and 'nosig' in M: r['result']['value']=[None for _ in r['result']['value']]
                if m=='getSignatureStatuses' and 'failed' in M:
                    for v in r['result']['value']:
                        if v: v['err']={'InstructionError':[0,{'Custom':1}]}; v['status']={'Err':v['err']}
                if m=='getSignatureStatuses' and 'fakeok' in M:
                    slot=r['result']['context']['slot']; r['result']['value']=[v or {'slot':slot-40,'confirmations':None,'err':None,'status':{'Ok':None},'confirmationStatus':'finalized'} for v in r['result']['value']]
                if m in('getTransaction',) and 'nosig' in M: r['result']=None
                if m=='getTransaction' and 'failed' in M and r.get('result'): r['result']['meta']['err']={'InstructionError':[0,{'Custom':1}]}
                if m=='getSignaturesForAddress' and 'nosig' in M: r['result']=[]
                if m=='getSignaturesForAddress' and 'failed' in M:
                    for v in r['result']: v['err']={'InstructionError':[0,{'Custom':1}]}
                if 'high' in M:
                    if m in('getSlot','getBlockHeight'): r['result']+=5000
                    elif m=='getEpochInfo': r['result']['blockHeight']+=5000; r['result']['absoluteSlot']+=5000
                    elif isinstance(r.get('result'),dict) and 'context' in r['result']: r['result']['context']['slot']+=5000
                if 'noacc' in M and m=='getAccountInfo': r['result']['value']=None
                if 'noacc' in M and m=='getMultipleAccounts': r['result']['value']=[None for _ in r['result']['value']]
                if 'tokbal' in M and m=='getTokenAccountBalance': r['result']['value']['amount']=str(int(r['result']['value']['amount'])+1000)
            except Exception as e: print('lie failed',m,e,r,flush=True)
            outs.append(r)
        b=json.dumps(outs if isinstance(q,list) else outs[0]).encode()
        self.send_response(200); self.send_header('content-type','application/json'); self.send_header('content-length',str(len(b))); self.end_headers(); self.wfile.write(b)
        if sum(seen.values())%200<2: open('/tmp/s4twice-x/seen-%s.json'%name,'w').write(json.dumps(seen))
class S(socketserver.ThreadingMixIn,http.server.HTTPServer): daemon_threads=True; allow_reuse_address=True
S(('127.0.0.1',port),H).serve_forever()
