from fund2 import *
for l in json.loads(pixr('payouts','stops','--json')[1]): pixr('payouts','release',l['name'])
P={h:mkcreator(h) for h in ('x1','x2','x3')}
prove(*P['x1'],kp('x1old')); prove(*P['x2'],kp('x2old')); prove(*P['x3'],kp('x3w'))
print(pixr('payouts','hold',P['x1'][0],'x')[1]); prove(*P['x2'],kp('x2new')); t=time.time()
fund2(P['x1'][0],70000); fund2(P['x2'][0],60000)
s,d=req('POST','/v1/keys',ADMIN,{'name':'k-x3','scopes':['creator'],'creator_id':P['x3'][0]}); P['thief']=[d['id'],d['key']]
print(until(lambda:req('GET',f"/v1/creators/{P['x1'][0]}/earnings",P['x1'][1])[1]['payable']!='0'),until(lambda:req('GET',f"/v1/creators/{P['x2'][0]}/earnings",P['x2'][1])[1]['payable']!='0'))
print(pixr('backup','/tmp/s4wallet-1/b4.dump')); json.dump(P,open('p2.json','w'))
prove(*P['x1'],kp('x1new')); t=time.time()
print(pixr('payouts','hold',P['x2'][0],'fraud, police')[1]); print('revoked',req('DELETE',f"/v1/keys/{d['id']}",ADMIN)[0],req('GET',f"/v1/creators/{P['x3'][0]}/earnings",d['key'])[0])
time.sleep(max(0,56-(time.time()-t)))
for l in json.loads(pixr('payouts','stops','--json')[1]):
    if int(l.get('creator_id') or 0)==P['x1'][0]: print(pixr('payouts','release',l['name']))
print(until(lambda:bal(kp('x1new').pubkey())=='70000',30), 'x2',bal(kp('x2old').pubkey()),bal(kp('x2new').pubkey()))
