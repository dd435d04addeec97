from h import *
r=adm.get('/v1/videos?limit=100').json()
for v in r['videos']: print(v['id'],v['creator'],v['title'],v['description'],v['tags'])
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
q='a rhinoceros'; o=oracle(q=q)
try_('plain',o,q=q)
try_('minrel0',o,q='a tent',relevance_min_ppm=0)
o=oracle(q='an accordion')
try_('negative',o,q='an accordion',negative=['a tent','a croissant'])
try_('textweight',o,q='an accordion',weights={'vector':0,'text':100})
try_('filter',o,q='an accordion',filters={'creator_id':[1]},relevance_min_ppm=0)
try_('groupvideo',o,q='an accordion',group_by='video')
try_('blend',o,q='an accordion',segment_id='24',blend={'text':0,'segment':100})
try_('blend2',o,q='an accordion',segment_id='24',blend={'text':100,'segment':0})
