from lib import *
import hashlib,secrets
c=db('serve')
def t(name,sql,*a):
    try:
        r=c.execute(sql,a); print('OK  ',name,r.fetchall() if r.description else r.statusmessage)
    except Exception as e: print('no  ',name,str(e).split('\n')[0][:200])
t('backdate bob key',"update app.api_keys set created_at=now()-interval '3 days' where principal_id=(select id from app.principals where name='bob')")
t('backdate bob',"update app.principals set created_at=now()-interval '3 days' where name='bob'")
key='pixr_'+secrets.token_urlsafe(32)
t('own principal',"insert into app.principals(name,created_at) values('carol',now()-interval '9 days') returning id,created_at")
t('own key',"insert into app.api_keys(principal_id,hash,scopes,created_at) values((select id from app.principals where name='carol'),%s,array['admin'],now()-interval '9 days') returning id,created_at",hashlib.sha256(key.encode()).digest())
t('hash to admin principal',"insert into app.api_keys(principal_id,hash,scopes,created_at) values(1,%s,array['admin'],now()-interval '9 days') returning id,created_at",hashlib.sha256(('x'+key).encode()).digest())
t('rename bob->admin2; swap principal',"update app.principals set name='root' where name='bob' returning *")
t('key 2 made admin',"update app.api_keys set scopes=array['admin'] where id=1000000002")
open(D+'carol.key','w').write(key)
print(db('owner').execute("select id,principal_id,scopes,created_at from app.api_keys").fetchall())
t('login as admin over HTTP','select 1'); print(http_('GET','/v1/keys',key=key)[0])
