from fund2 import *
P=json.load(open('p3.json'))
sid,sk=mkcreator('sock6'); print('sock unproven',req('PUT',f'/v1/creators/{sid}/wallet',sk,{'wallet':str(kp('y1a').pubkey())})[1].get('hold_until'))
print(until(lambda:req('GET',f'/v1/creators/{sid}/payouts',sk)[1].get('total'),30))
print('y1 names another first wallet',prove(*P['y1'],kp('y1b'))[1].get('hold_until'))
for l in json.loads(pixr('payouts','stops','--json')[1]): print(l['name'],l['reason'],pixr('payouts','release',l['name'])[1])
print(until(lambda:bal(kp('y1b').pubkey())=='80000',20),'y1a',bal(kp('y1a').pubkey()),'y1b',bal(kp('y1b').pubkey()))
