from lib import *
o=db(); bals=lambda: dict(o.execute("select owner,-balance from ledger.accounts where kind='nothing'").fetchall())
earn=lambda: {r[0]:int(json.loads(json.dumps(http_('GET','/v1/creators/%d/earnings'%r[0],key=K)[2]))['accrued']) for r in db('owner').execute("select id from media.creators").fetchall()}
def step(n,f):
    time.sleep(1.5); a=earn(); x=f(); time.sleep(4); b=earn(); print(n,x,'earned',{k:b[k]-a.get(k,0) for k in b if b[k]!=a.get(k,0)},flush=True)
vs=db('owner').execute("select v.id,v.title,v.creator_id,c.handle from media.videos v join media.creators c on c.id=v.creator_id where v.id=13 or v.title in ('Same','Appended','Mirror')").fetchall(); print(vs)
def s(q,src,**kw):
    st,h,b=http_('GET','/v1/search?'+urllib.parse.urlencode(dict(q=q,limit=20,**kw)),src=src); return st,[(m['video_id'],m['segment_id'],m['relevance_ppm']) for m in b.get('moments',[])][:6]
q='a mobile phone'
step('all together',lambda: s(q,'127.0.2.2'))
for v in vs: step('filter video %s %s'%(v[0],v[1]),lambda: s(q,'127.0.2.%d'%(10+v[0]%100),video_id=v[0]))
seg=db('owner').execute("select id,video_id from media.segments where video_id=any(%s) order by 1",([v[0] for v in vs],)).fetchall(); print(seg)
step('negative/cid filter fro',lambda: s(q,'127.0.2.60',creator_id=[v[2] for v in vs if v[1]=='Same'][0]))
a=[x[0] for x in seg if x[1]==13][0]
step('similar of original',lambda: (lambda r:(r[0],[(m['video_id'],m['relevance_ppm']) for m in r[2].get('moments',[])][:5]))(http_('GET','/v1/segments/%d/similar?limit=10'%a,src='127.0.2.61')))
# reassign via takedown: unlist the original then the repost earns?
ap=[v[0] for v in vs if v[1]=='Same'][0]
print('fro-key accepts its own repost:'); s_,h,b=http_('POST','/v1/keys',{'name':'fro%d'%time.time(),'scopes':['ingest'],'creators':['fro']},key=K); kf=b['key']
print(http_('PATCH','/v1/videos/%d'%ap,{'repost_accepted':True},key=kf)[0], http_('PATCH','/v1/videos/13',{'visibility':'private'},key=kf)[0], http_('DELETE','/v1/videos/13',key=kf)[0])
