import s3fs
S=open('/tmp/str-b/secrets/s3').read().strip()
fs=s3fs.S3FileSystem(key='pixr',secret=S,endpoint_url='http://127.0.0.1:9001',client_kwargs={'region_name':'us-east-1'},config_kwargs={'s3':{'addressing_style':'path'}})
def put(k,b):
    with fs.open('pixr/'+k,'wb') as f: f.write(b)
