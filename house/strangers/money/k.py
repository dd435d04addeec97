from h import *
for k in adm.get('/v1/keys?limit=1000').json()['keys']: print(k['id'],k['name'],k['scopes'],k['creators'],k['creator_id'],k['created_at'][11:19],(k['revoked_at'] or '')[11:19])
