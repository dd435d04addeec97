from fund2 import *
P=json.load(open('p2.json'))
print('revoked key now',req('GET',f"/v1/creators/{P['x3'][0]}/earnings",P['thief'][1])[0])
sid,sk=mkcreator('sock5'); print('sock unproven',req('PUT',f'/v1/creators/{sid}/wallet',sk,{'wallet':str(kp('x1new').pubkey())})[1].get('proven'))
print(until(lambda:req('GET',f'/v1/creators/{sid}/payouts',sk)[1].get('total'),40)); show(req('GET',f'/v1/creators/{sid}/payouts',sk)[1])
for l in json.loads(pixr('payouts','stops','--json')[1]): print(l['name'],l['reason'],pixr('payouts','release',l['name'])[1])
print(until(lambda:bal(kp('x1old').pubkey())=='70000',25)); print('x1 old',bal(kp('x1old').pubkey()),'x1 new',bal(kp('x1new').pubkey()),'x2 (fraud hold forgotten)',bal(kp('x2old').pubkey()),bal(kp('x2new').pubkey()))
rc,o=pixr('audit','--full'); print(rc,[l for l in o.split('\n') if '✓' not in l])
