from fund2 import *
import re
P={}
for main,sock in (('d2','s2'),):
    P[main]=mkcreator(main); P[sock]=mkcreator(sock)
P['s3']=mkcreator('s3'); P['d3']=mkcreator('d3'); P['d4']=mkcreator('d4')
for m,s in (('d2','s2'),('d3','s3')):
    w=kp('w_'+m); print(m,prove(*P[m],w)[1].get('hold_until'), s, req('PUT',f'/v1/creators/{P[s][0]}/wallet',P[s][1],{'wallet':str(w.pubkey())})[0])
print('d4',prove(*P['d4'],kp('d4old'))[1].get('hold_until'))
for m in ('d2','d3','d4'): print(pixr('payouts','hold',P[m][0],'x')); fund2(P[m][0],{'d2':20000,'d3':30000,'d4':40000}[m])
for m in ('d2','d3','d4'): print(until(lambda:req('GET',f'/v1/creators/{P[m][0]}/earnings',P[m][1])[1]['payable']!='0'))
print(pixr('backup','/tmp/s4wallet-1/b3.dump')); json.dump(P,open('p.json','w'))
t=time.time(); prove(*P['d4'],kp('d4new'))
for l in json.loads(pixr('payouts','stops','--json')[1]):
    if int(l.get('creator_id') or 0) in (P['d2'][0],P['d3'][0]): print(l['name'],pixr('payouts','release',l['name']))
time.sleep(max(0,50-(time.time()-t)))
for l in json.loads(pixr('payouts','stops','--json')[1]): print(l['name'],pixr('payouts','release',l['name']))
print(until(lambda:bal(kp('d4new').pubkey())=='40000',40))
print([bal(kp(x).pubkey()) for x in ('w_d2','w_d3','d4old','d4new')])
