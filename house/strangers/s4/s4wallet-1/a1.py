from h import *; from db import q,con
import itertools
# scratch creators made as an ingest would
ids={}
for hdl in ['vic1','att1','vic2','vic3','vic4','vic5','vic6']:
    q('jobs',"insert into media.creators(handle,name) values(%s,%s) on conflict do nothing",hdl,hdl)
    ids[hdl]=q('jobs','select id from media.creators where handle=%s',hdl)[0][0]
json.dump(ids,open('ids.json','w')); show(ids)
keys={}
for hdl,i in ids.items():
    s,d=req('POST','/v1/keys',ADMIN,{'name':'k-'+hdl,'scopes':['creator'],'creator_id':i}); keys[hdl]=d['key'] if s==201 else show(s,d)
json.dump(keys,open('keys.json','w'))
