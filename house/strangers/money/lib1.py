from h import *
r=adm.get('/v1/videos?limit=100').json()

a=settle(); print(a)
def try_(name,orc=None,method='POST',path='/v1/search',c=None,headers={},**body):
    global a
    c=c or fresh()
    if method=='POST': r=c.post(path,json={**body,'explain':True},headers=headers)
    else: r=c.request(method,path,params=body,headers=headers)
    try: ms=r.json()['moments']
    except Exception: ms=[]; print(name,r.status_code,r.text[:200])
    b=settle(); d=delta(a,b); a=b
    line=[(m['segment_id'],m['creator_id'],m['relevance_ppm'],(m.get('explain') or {}).get('above_cut'),orc and orc.get(m['segment_id'],{}).get('relevance_ppm')) for m in ms[:8]]
    print(name,r.status_code,'credited',d,'expected(answer)',exp(ms),'n',len(ms),line)
    return r
