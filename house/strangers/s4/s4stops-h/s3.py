import s3fs,sys
k=open('/srv/stops/.pixr/secrets/s3').read().strip()
for key in ('pixr','minioadmin','juicefs','admin'):
    f=s3fs.S3FileSystem(key=key,secret=k,endpoint_url='http://127.0.0.1:9001')
    try: print(key,f.ls('pixr/ledger/heads')); break
    except Exception as e: print(key,repr(e)[:120]); f=None
if f and len(sys.argv)>1:
    for n in sys.argv[1:]: 
        with f.open('pixr/ledger/heads/'+n,'wb') as h: h.write(b'{}')
