from h import *
import time
def mk(nm,cr): n=r('POST','/v1/keys','admin',json={'name':nm,'scopes':['ingest'],'creators':cr}).json(); K[nm]=n['key']; return n['id']
ids=[mk('AB',['ana','bruno']),mk('B2',['bruno']),mk('A2',['ana'])]
L='s3://pixr/uploads/lists/70a221448d6e1fccfd759dd4d2f52488.jsonl'
x=r('POST','/v1/jobs','AB',json={'source':L}); j=x.json()['id']; print(x.status_code)
x=r('POST','/v1/jobs','bruno-ing',json={'source':L}); jb=x.json()['id']
print('cancel by other key B2 of bruno-ing job:',r('DELETE','/v1/jobs/'+jb,'B2').status_code, r('GET','/v1/jobs/'+jb,'bruno-ing').json()['status'])
for i in range(60):
    d=r('GET','/v1/jobs/'+j,'AB').json()
    if d['status'] not in('queued','running'): break
    time.sleep(1.5)
print(d['status'],[ (f['title'],f['video_id']) for f in d['failures']],d['options'])
for k in ('B2','A2','bruno-ing','ana-ing','none-ing','any-ing'): y=r('GET','/v1/jobs/'+j,k); print(k,'job of AB',y.status_code,'| job of bruno-ing',r('GET','/v1/jobs/'+jb,k).status_code)
print('AB sees job of bruno-ing',r('GET','/v1/jobs/'+jb,'AB').status_code)
for i in ids: r('DELETE','/v1/keys/'+i,'admin')
