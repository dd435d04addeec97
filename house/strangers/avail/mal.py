import socket,time,sys,gzip,zlib,json
def raw(data,src='127.0.0.10',wait=4,shut=False,chunks=None):
    s=socket.socket(); s.bind((src,0)); s.settimeout(wait); s.connect(('127.0.0.1',8000))
    t=time.time(); buf=b''
    try:
        for d in (chunks or [data]): s.sendall(d)
        if shut: s.shutdown(1)
        while True:
            b=s.recv(65536)
            if not b: buf+=b'<EOF>'; break
            buf+=b
            if len(buf)>400000: break
    except socket.timeout: buf+=b'<TIMEOUT>'
    except Exception as e: buf+=repr(e).encode()
    s.close(); return time.time()-t,buf
H=b'Host: 127.0.0.1:8000\r\n'
C=b'Connection: close\r\n'
def post(body,extra=b'',ct=b'application/json',path=b'/v1/search'):
    return b'POST '+path+b' HTTP/1.1\r\n'+H+C+b'Content-Type: '+ct+b'\r\n'+extra+b'Content-Length: %d\r\n\r\n'%len(body)+body
def get(path,extra=b'',m=b'GET',v=b'HTTP/1.1'):
    return m+b' '+path+b' '+v+b'\r\n'+H+C+extra+b'\r\n'
T={}
T['h2 preface']=b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0'
T['h2c upgrade']=get(b'/v1/search?q=cat',b'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n')
T['ws upgrade']=b'GET /v1/search/stream?q=cat HTTP/1.1\r\n'+H+b'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'
T['ws /']=b'GET / HTTP/1.1\r\n'+H+b'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'
T['absolute']=get(b'http://evil.example/v1/search?q=cat')
T['absolute https']=get(b'https://evil.example/v1/search?q=cat')
T['connect']=b'CONNECT 127.0.0.1:9000 HTTP/1.1\r\n'+H+C+b'\r\n'
for m in b'OPTIONS TRACE PUT DELETE PATCH HEAD FOO PROPFIND QUERY'.split(): T['method '+m.decode()]=get(b'/v1/search?q=cat',m=m)
T['options *']=get(b'*',m=b'OPTIONS')
T['get *']=get(b'*')
T['cors preflight']=get(b'/v1/search',b'Origin: http://e.vil\r\nAccess-Control-Request-Method: POST\r\n',m=b'OPTIONS')
T['no host']=b'GET /v1/search?q=cat HTTP/1.1\r\nConnection: close\r\n\r\n'
T['two host']=b'GET /v1/search?q=cat HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n'
T['odd host']=b'GET /v1/search?q=cat HTTP/1.1\r\nHost: a b\xff<script>\r\nConnection: close\r\n\r\n'
T['host at']=b'GET /v1/search?q=cat HTTP/1.1\r\nHost: u:p@[::1]:99999/x?y\r\nConnection: close\r\n\r\n'
T['host bracket']=b'GET /v1/search?q=cat HTTP/1.1\r\nHost: [::1\r\nConnection: close\r\n\r\n'
T['host port']=b'GET /v1/search?q=cat HTTP/1.1\r\nHost: a:bbb\r\nConnection: close\r\n\r\n'
T['host empty']=b'GET /v1/search?q=cat HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n'
T['http10']=b'GET /v1/search?q=cat HTTP/1.0\r\n\r\n'
T['http09']=b'GET /\r\n'
T['http 1.2']=get(b'/v1/search?q=cat',v=b'HTTP/1.2')
T['http 3']=get(b'/v1/search?q=cat',v=b'HTTP/3.0')
T['lf only']=b'GET /v1/search?q=cat HTTP/1.1\nHost: a\nConnection: close\n\n'
T['nul path']=get(b'/v1/search?q=a\0b')
T['%00']=get(b'/v1/search?q=a%00b')
T['%ff']=get(b'/v1/search?q=%ff%fe')
T['surrogate']=get(b'/v1/search?q=%ED%A0%80')
T['%zz']=get(b'/v1/search?q=%zz%')
T['raw utf8 path']=get('/v1/search?q=ж'.encode())
T['raw ff path']=get(b'/v1/\xff\xfe')
T['path %ff']=get(b'/v1/%ff%fe%00')
T['dots']=get(b'/web/../../../../etc/passwd')
T['dots enc']=get(b'/web/%2e%2e/%2e%2e/%2e%2e/etc/passwd')
T['web nul']=get(b'/web/%00')
T['web long']=get(b'/web/'+b'a'*5000)
T['media ..']=get(b'/media/thumbnails/%2e%2e%2f?expires=1&signature=a')
T['seg huge']=get(b'/v1/segments/'+b'9'*40)
T['seg huge2']=get(b'/v1/segments/'+b'9'*5000)
T['vid neg']=get(b'/v1/videos/-1')
T['vid uni']=get('/v1/videos/%D9%A1'.encode())
T['vid sup']=get('/v1/videos/%C2%B2'.encode())
T['cre nul']=get(b'/v1/creators/%00')
T['cre huge']=get(b'/v1/creators/9223372036854775808')
T['stream bad']=get(b'/v1/search/stream?q=%00')
T['limit huge']=get(b'/v1/search?q=cat&limit='+b'9'*5000)
T['limit float']=get(b'/v1/search?q=cat&limit=1e3')
T['vw nan']=get(b'/v1/search?q=cat&vector_weight=nan')
T['vw inf']=get(b'/v1/search?q=cat&vector_weight=inf&text_weight=-inf')
T['vw 1e308']=get(b'/v1/search?q=cat&vector_weight=1e308&text_weight=1e308')
T['vw 1e-320']=get(b'/v1/search?q=cat&vector_weight=1e-320&text_weight=1e-320')
T['blend nan']=get(b'/v1/search?q=cat&segment_id=20&segment_blend=1e308&text_blend=1e308&negative=dog&negative_blend=1e308')
T['blend cancel']=get(b'/v1/search?q=cat&negative=cat&negative_blend=1&text_blend=1')
T['blend tiny']=get(b'/v1/search?q=cat&negative=cat&negative_blend=1e-300&text_blend=1e-300')
T['created']=get(b'/v1/search?q=cat&created_after=0001-01-01T00:00:00%2B23:59&created_before=9999-12-31T23:59:59-23:59')
T['created2']=get(b'/v1/search?q=cat&created_after=99999999999999999999')
T['created3']=get(b'/v1/search?q=cat&created_after=-1e400')
T['dur']=get(b'/v1/search?q=cat&duration_min_ms=9223372036854775807&duration_max_ms=9223372036854775808')
T['stake']=get(b'/v1/search?q=cat&stake_min_pix=1e400')
T['stake2']=get(b'/v1/search?q=cat&stake_min_pix=9'+b'9'*400)
T['height']=get(b'/v1/search?q=cat&height_min=99999999999999')
T['tags']=get(b'/v1/search?q=cat'+b'&tags=a'*500)
T['tags2']=get(b'/v1/search?q=cat'+b''.join(b'&tags=a%d'%i for i in range(900)))
T['cids']=get(b'/v1/search?q=cat'+b''.join(b'&creator_id=%d'%i for i in range(500)))
T['unknown params']=get(b'/v1/search?q=cat'+b''.join(b'&x%d=1'%i for i in range(1500)))
T['unknown long']=get(b'/v1/search?q=cat&'+b'vector_weigh'*900+b'=1')
T['cursor junk']=get(b'/v1/search?cursor=AAAA')
T['cursor long']=get(b'/v1/search?cursor='+b'A'*9000)
T['cursor b64']=get(b'/v1/search?cursor=%FF%00')
T['list cursor']=get(b'/v1/videos?cursor=eyJhIjoxfQ')
T['image']=get(b'/v1/search?image=s3://pixr/x.png')
T['image2']=get(b'/v1/search?image=http://127.0.0.1:9000/')
T['image3']=get(b'/v1/search?image=s3://../../%00')
T['idem long']=get(b'/v1/search?q=cat',b'Idempotency-Key: '+b'k'*5000+b'\r\n')
T['idem uni']=get(b'/v1/search?q=cat',b'Idempotency-Key: \xff\xfe\r\n')
T['auth uni']=get(b'/v1/search?q=cat',b'Authorization: Bearer \xff\xfe\r\n')
T['auth long']=get(b'/v1/search?q=cat',b'Authorization: Bearer '+b'k'*12000+b'\r\n')
T['auth basic']=get(b'/v1/search?q=cat',b'Authorization: Basic Og==\r\n')
T['auth two']=get(b'/v1/search?q=cat',b'Authorization: Bearer a\r\nAuthorization: Bearer b\r\nX-API-Key: z\r\n')
T['cookie']=get(b'/v1/search?q=cat',b'Cookie: pixr_viewer=\xff.\xfe; pixr_viewer=a.b; ;;=;\r\n')
T['cookie many']=get(b'/v1/search?q=cat',b'Cookie: '+b'a=b;'*2500+b'\r\n')
T['headers many']=get(b'/v1/search?q=cat',b''.join(b'X-%d: a\r\n'%i for i in range(300)))
T['headers big']=get(b'/v1/search?q=cat',b'X-A: '+b'a'*70000+b'\r\n')
T['headers 60k small']=get(b'/v1/search?q=cat',b''.join(b'a%d:\r\n'%i for i in range(99)))
T['uri 12k']=get(b'/v1/search?q='+b'a'*12000)
T['uri 100k']=get(b'/v1/search?q='+b'a'*100000)
T['inm many']=get(b'/v1/search?q=cat',b'If-None-Match: '+b'"a",'*2500+b'\r\n')
T['inm star']=get(b'/v1/search?q=cat',b'If-None-Match: *\r\n')
T['inm odd']=get(b'/',b'If-None-Match: \xff W/"\r\n')
T['range']=get(b'/',b'Range: bytes=0-0,1-1,2-2\r\n')
T['range2']=get(b'/web/app.js',b'Range: bytes='+b','.join(b'%d-%d'%(i,i) for i in range(1200))+b'\r\n')
T['range3']=get(b'/v1/search?q=cat',b'Range: bytes=-99999999999999999999999\r\n')
T['ifmod']=get(b'/web/app.js',b'If-Modified-Since: Foo, 99 Bar 99999 99:99:99 GMT\r\n')
T['ae']=get(b'/v1/search?q=cat',b'Accept-Encoding: '+b'gzip;q=0.1,'*900+b'\r\n')
T['ae bad']=get(b'/v1/search?q=cat',b'Accept-Encoding: gzip;q=nan, \xff;q=1e999\r\n')
T['al bad']=get(b'/v1/search?q=cat',b'Accept-Language: '+b'en,'*3000+b'\r\n')
T['origin bad']=get(b'/v1/search?q=cat',b'Origin: http://[::1\r\nReferer: http://[zz\r\n')
T['origin bad2']=get(b'/v1/search?q=cat',b'Origin: http://a:99999999\r\nReferer: ://\xff\r\n')
T['origin post bad']=post(b'{"query":"cat"}',b'Origin: http://[::1\r\nReferer: http://[zz\r\n')
T['xff']=get(b'/v1/search?q=cat',b'X-Forwarded-For: a, \xff, 1.2.3.4, 999.9\r\nX-Forwarded-Proto: \xff\r\nX-Forwarded-Host: [\r\nForwarded: for="[::1\r\n')
T['reqid']=get(b'/v1/search?q=cat',b'X-Request-Id: \xff\xfe'+b'a'*3000+b'\r\nTraceparent: 00-zz-\xff\r\n')
T['reqid2']=get(b'/v1/search?q=cat',b'X-Request-Id: a\x01b\r\n')
T['serve mux']=get(b'/v1/search?q=cat',b'serve_multiplexed_model_id: zz\r\n')
T['serve routes']=get(b'/-/routes'); T['serve healthz']=get(b'/-/healthz')
T['TE+CL']=b'POST /v1/search HTTP/1.1\r\n'+H+b'Content-Type: application/json\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/feed HTTP/1.1\r\n'+H+C+b'\r\n'
T['TE xchunked']=b'POST /v1/search HTTP/1.1\r\n'+H+C+b'Content-Type: application/json\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n'
T['TE gzip,chunked']=b'POST /v1/search HTTP/1.1\r\n'+H+C+b'Content-Type: application/json\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n'
T['TE tab']=b'POST /v1/search HTTP/1.1\r\n'+H+C+b'Content-Type: application/json\r\nTransfer-Encoding:\tchunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n'
T['TE space colon']=b'POST /v1/search HTTP/1.1\r\n'+H+C+b'Content-Type: application/json\r\nTransfer-Encoding : chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n'
T['2 CL']=b'POST /v1/search HTTP/1.1\r\n'+H+C+b'Content-Type: application/json\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd'
T['CL list']=b'POST /v1/search HTTP/1.1\r\n'+H+C+b'Content-Type: application/json\r\nContent-Length: 3, 3\r\n\r\nabcd'
T['CL neg']=b'POST /v1/search HTTP/1.1\r\n'+H+C+b'Content-Type: application/json\r\nContent-Length: -3\r\n\r\nabcd'
T['CL plus']=b'POST /v1/search HTTP/1.1\r\n'+H+C+b'Content-Type: application/json\r\nContent-Length: +3\r\n\r\nabcd'
T['CL huge']=b'POST /v1/search HTTP/1.1\r\n'+H+C+b'Content-Type: application/json\r\nContent-Length: 99999999999999999999999\r\n\r\nabcd'
T['CL 2^63']=b'POST /v1/search HTTP/1.1\r\n'+H+C+b'Content-Type: application/json\r\nContent-Length: 9223372036854775807\r\n\r\nabcd'
T['chunk huge']=b'POST /v1/search HTTP/1.1\r\n'+H+C+b'Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nabcd'
T['chunk ext']=b'POST /v1/search HTTP/1.1\r\n'+H+C+b'Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1;'+b'a'*3000+b'\r\n{\r\n0\r\n\r\n'
T['chunk neg']=b'POST /v1/search HTTP/1.1\r\n'+H+C+b'Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n{\r\n0\r\n\r\n'
T['chunk trailers']=b'POST /v1/search HTTP/1.1\r\n'+H+C+b'Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n{"query":"cat"}\r\n0\r\nHost: evil\r\nContent-Length: 5\r\nX: y\r\n\r\n'
T['GET body']=get(b'/v1/search?q=cat',b'Content-Length: 5\r\n')+b'hello'
T['GET chunked']=get(b'/v1/search?q=cat',b'Transfer-Encoding: chunked\r\n')+b'5\r\nhello\r\n0\r\n\r\n'
T['GET body big']=get(b'/v1/search?q=cat',b'Content-Length: 3000000\r\n')+b'h'*3000000
T['HEAD body']=get(b'/v1/search?q=cat',b'Content-Length: 5\r\n',m=b'HEAD')+b'hello'
T['expect 100']=b'POST /v1/search HTTP/1.1\r\n'+H+C+b'Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 15\r\n\r\n'
T['expect 100 big']=b'POST /v1/search HTTP/1.1\r\n'+H+C+b'Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 150000000\r\n\r\n'
T['expect odd']=b'POST /v1/search HTTP/1.1\r\n'+H+C+b'Content-Type: application/json\r\nExpect: 200-ok\r\nContent-Length: 15\r\n\r\n{"query":"cat"}'
T['deep []']=post(b'['*100000); T['deep [] closed']=post(b'['*100000+b']'*100000)
T['deep {}']=post(b'{"a":'*50000+b'1'+b'}'*50000)
T['deep under q']=post(b'{"query":'+b'['*900+b']'*900+b'}')
T['deep under q2']=post(b'{"query":"cat","filters":'+b'{"a":'*5000+b'1'+b'}'*5000+b'}')
T['bigint']=post(b'{"query":"cat","limit":'+b'9'*5000+b'}')
T['bigint 100k']=post(b'{"query":"cat","limit":'+b'9'*200000+b'}')
T['NaN']=post(b'{"query":"cat","limit":NaN}'); T['Inf']=post(b'{"query":"cat","vector_weight":Infinity,"text_weight":1e999}')
T['sur']=post(b'{"query":"\\ud800 cat"}'); T['sur key']=post(b'{"\\ud800":"cat"}'); T['sur neg']=post(b'{"query":"cat","negative":"\\udfff"}')
T['sur tags']=post(b'{"query":"cat","filters":{"tags":["\\ud800"]}}')
T['sur image']=post(b'{"image":"\\ud800"}'); T['sur cursor']=post(b'{"cursor":"\\ud800"}')
T['sur idem']=post(b'{"query":"cat","intent":"\\ud800","language":"\\ud800"}')
T['nul']=post(b'{"query":"a\\u0000b"}'); T['dupe keys']=post(b'{'+b'"query":"cat",'*5000+b'"query":"x"}')
T['many keys']=post(b'{'+b','.join(b'"k%d":1'%i for i in range(20000))+b'}')
T['utf16']=post('{"query":"cat"}'.encode('utf-16')); T['utf32']=post('{"query":"cat"}'.encode('utf-32'))
T['bom']=post(b'\xef\xbb\xbf{"query":"cat"}'); T['ct utf7']=post(b'{"query":"cat"}',ct=b'application/json; charset=utf-7')
T['ct odd']=post(b'{"query":"cat"}',ct=b'\xff/\xfe;charset=idna'); T['ct form']=post(b'query=cat',ct=b'application/x-www-form-urlencoded')
T['ct multipart']=post(b'--a\r\n\r\n',ct=b'multipart/form-data; boundary='+b'a'*3000)
T['empty']=post(b''); T['null']=post(b'null'); T['list']=post(b'[]'); T['str']=post(b'"x"'); T['no ct']=b'POST /v1/search HTTP/1.1\r\n'+H+C+b'Content-Length: 15\r\n\r\n{"query":"cat"}'
z=gzip.compress(b'{"query":"'+b' '*30_000_000+b'cat"}')
T['gzip bomb']=post(z,b'Content-Encoding: gzip\r\n'); T['deflate']=post(zlib.compress(b'{"query":"cat"}'),b'Content-Encoding: deflate\r\n'); T['br']=post(b'\x0b',b'Content-Encoding: br\r\n')
T['ce many']=post(gzip.compress(b'{"query":"cat"}'),b'Content-Encoding: gzip, gzip, gzip\r\n')
T['events empty']=post(b'{}',path=b'/v1/events'); T['events junk']=post(b'{"events":['+b'{},'*20000+b'{}]}',path=b'/v1/events'); T['events deep']=post(b'['*90000,path=b'/v1/events')
T['jobs nokey']=post(b'{"source":"x"}',path=b'/v1/jobs'); T['jobs deep']=post(b'['*90000,path=b'/v1/jobs')
T['obs-fold']=get(b'/v1/search?q=cat',b'X-A: a\r\n b\r\n')
T['hdr nul']=get(b'/v1/search?q=cat',b'X-A: a\0b\r\n'); T['hdr nocolon']=get(b'/v1/search?q=cat',b'garbage\r\n'); T['hdr empty name']=get(b'/v1/search?q=cat',b': a\r\n')
T['hdr bare cr']=get(b'/v1/search?q=cat',b'X-A: a\rX-B: b\r\n')
T['quotes']=get(b'/v1/search?q='+b'%22a%22-'*70); T['minus']=get(b'/v1/search?q='+b'-a+'*120); T['only minus']=get(b'/v1/search?q=-cat'); T['tsq']=get(b'/v1/search?q=%26%7C!()%3A*%27%5C%3C-%3E')
T['zalgo']=get(('/v1/search?q='+'%CC%81'*490).encode()); T['emoji']=get(('/v1/search?q='+'%F0%9F%8F%B4%F3%A0%81%A7'*200).encode())
T['fdfa']=get(('/v1/search?q='+'%EF%B7%BA'*500).encode())
T['compl']=get(b'/v1/completions?q=%25'); T['compl2']=get(b'/v1/completions?q=%5C'); T['compl3']=get(b'/v1/completions?q=_%25_%25'); T['compl nul']=get(b'/v1/completions?q=%00'); T['compl long']=get(b'/v1/completions?q='+b'a'*3000)
T['similar']=get(b'/v1/segments/20/similar'); T['similar0']=get(b'/v1/segments/0/similar'); T['similar neg']=get(b'/v1/segments/-20/similar')
T['thumb']=get(b'/media/thumbnails/20?expires=99999999999999999999&signature=a'); T['thumb2']=get(b'/media/videos/1?expires=x&signature=%ff')
T['metrics']=get(b'/metrics'); T['readyz']=get(b'/readyz'); T['docs']=get(b'/docs')
T['tls hello']=bytes.fromhex('16030100c8010000c40303')+b'a'*200
T['smuggle crlf path']=b'GET /v1/search?q=cat%0d%0aX:%20y HTTP/1.1\r\n'+H+C+b'\r\n'
T['proxy v1']=b'PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n'+get(b'/v1/feed')
T['garbage']=bytes(range(256))*40
T['only crlf']=b'\r\n'*2000+get(b'/v1/feed')
if __name__=='__main__':
    sel=sys.argv[1:]
    i=0
    for k,d in T.items():
        if sel and not any(x in k for x in sel): continue
        i+=1
        dt,b=raw(d,'127.0.0.%d'%(10+i%20))
        head,_,body=b.partition(b'\r\n\r\n')
        st=head.split(b'\r\n')[0][:60].decode('latin1')
        ct=[l for l in head.lower().split(b'\r\n') if l.startswith(b'content-type')]
        ct=ct[0][13:].decode().strip() if ct else ''
        flag=''
        try: code=int(st.split()[1])
        except: code=0
        if code>=500 or (code>=400 and 'problem+json' not in ct and body[:5]!=b'<EOF>') or dt>1.5 or code==0: flag='  <<<<'
        print('%-22s %.2fs %s [%s] %s%s'%(k,dt,st,ct,(body[:130] if code!=200 else b''),flag),flush=True)
