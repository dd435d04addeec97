from h import *
vs=r('GET','/v1/videos?limit=50','admin').json()
for v in vs['videos']: print(v['id'],v['public_id'],v['creator_id'],v.get('visibility'),v['status'],v['title'],v['tags'],v.get('uri') or v.get('source'))
print(json.dumps(vs['videos'][0],indent=1))
show(r('GET','/v1/jobs','admin'),3000)
show(r('GET','/v1/search?q=pie&limit=1&explain=true&facets=true&highlight=true'),3000)
show(r('GET','/v1/videos?limit=1'))
