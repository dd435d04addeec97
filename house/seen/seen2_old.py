import sys, os, json, time, threading, subprocess, pathlib, random, string, collections
sys.path.insert(0,"/work/wt-fin"); 
import httpx, psycopg, numpy as np
from tests.releases import folders
from concurrent.futures import ThreadPoolExecutor
packed=folders.PACKED[0]; before=folders.before(packed); F=pathlib.Path("/tmp/seen2-old"); 
OLD,NEW="/work/wt-old","/work/wt-fin"
N=int(os.environ.get("N","1500")); PY={OLD:"/tmp/v/old-venv/bin/python",NEW:"/work/wt-fin/.venv/bin/python"}
def env(tree): return {k:v for k,v in os.environ.items() if not k.startswith("PIXR_")}|{"PYTHONPATH":tree,"PIXR_CONFIG":f"{tree}/configs/demo.toml","PIXR_DATA_DIR":str(F),"PIXR_SUPERVISOR_START_TIMEOUT_S":"400","RAY_raylet_start_wait_time_s":"240"}
def pixr(tree,*a,quiet=False):
    t=time.time(); d=subprocess.run([PY[tree],"-m","cluster.cli",*a],env=env(tree),cwd=tree,capture_output=True,text=True)
    print(f"[{time.time()-T0:6.1f}] {tree[-6:]} {' '.join(a)}: exit {d.returncode} in {time.time()-t:.1f} s", "" if quiet else (d.stdout[-700:]+d.stderr[-900:]),flush=True); return d
T0=time.time(); rows=[]; stop=False
def ports(): 
    try: return json.loads((F/"run/ports.json").read_text())
    except Exception: return {}
def name(i):
    s=""; i+=1
    while i: s+="bcdfghjklmnpqrtvwxz"[i%19]; i//=19
    return "zu"+"o".join(s)+"k"
WORDS=[name(i) for i in range(N)]
EXPECT={}
def one(c,n):
    kind=("words","caption","id")[n%3]; t=time.time(); tag=None
    p=ports().get("serve")
    try:
        if kind=="words":
            i=random.randrange(N); r=c.get(f"http://127.0.0.1:{p}/v1/search",params={"q":WORDS[i],"intent":"typing"})
            if r.status_code==200: tag=any(m["title"].startswith(WORDS[i]) for m in r.json()["moments"])
        elif kind=="caption":
            q=before.captions[n%len(before.captions)]; r=c.get(f"http://127.0.0.1:{p}/v1/search",params={"q":q,"intent":"search"})
            if r.status_code==200: tag=len(r.json()["moments"])>0
        else:
            i=random.choice(IDS); r=c.get(f"http://127.0.0.1:{p}/v1/videos/{i}"); tag=r.status_code==200
        code=r.status_code; deg=tuple(r.json().get("degraded") or ()) if code==200 and kind!="id" else (r.json().get("code") if code!=200 and "json" in r.headers.get("content-type","") else None)
    except Exception as e: code,deg=type(e).__name__,None
    rows.append((t,kind,code,deg,time.time()-t,tag))
def ask():
    c=httpx.Client(timeout=10,limits=httpx.Limits(max_connections=40)); n=0; nxt=time.time()
    with ThreadPoolExecutor(40) as ex:
        while not stop:
            ex.submit(one,c,n); n+=1; nxt+=0.1; time.sleep(max(0,nxt-time.time()))
def say(title,t0,t1):
    part=[r for r in rows if t0<=r[0]<t1]; by=collections.Counter((r[2],str(r[3]) if r[2]!=200 else ("" if not r[3] else str(r[3]))) for r in part)
    bad=[r[0] for r in part if r[2]!=200]; lat=sorted(r[4] for r in part if r[2]==200)
    print(f"== {title}: {len(part)} asked in {t1-t0:.1f} s; {dict(by)}; not 200 from {min(bad)-t0:.1f} to {max(bad)-t0:.1f} s" if bad else f"== {title}: {len(part)} asked in {t1-t0:.1f} s; {dict(by)}", "; p50",round(lat[len(lat)//2],3) if lat else None,"max",round(lat[-1],3) if lat else None, "; 200 but not found:",collections.Counter(r[1] for r in part if r[2]==200 and r[5] is False and not r[3]),flush=True)
folders.unpack(packed,F); F.chmod(0o755); subprocess.run(["chown","-R","nobody",str(F/"postgres")],check=True)
OLDPG=subprocess.Popen([PY[OLD],"-c","""
import sys,time,signal
from cluster import settings, supervisor
s=settings.load(); p=supervisor.start(s, only=('postgres',)); print(p.pid, flush=True); sys.stdin.readline(); p.send_signal(signal.SIGTERM); p.wait(60)
"""],env=env(OLD),cwd=OLD,stdin=subprocess.PIPE,stdout=subprocess.PIPE,text=True); OLDPG.stdout.readline()
def up_pg():
    for _ in range(240):
        try: psycopg.connect(f"postgresql://pixr:{(F/'secrets/postgres').read_text()}@127.0.0.1:{ports()['postgres']}/pixr").close(); return
        except Exception: time.sleep(0.5)
    raise SystemExit("no postgres")
up_pg(); print(f"[{time.time()-T0:.1f}] old PostgreSQL runs",flush=True)
pw=(F/"secrets/postgres").read_text()
db=psycopg.connect(f"postgresql://pixr:{pw}@127.0.0.1:{ports()['postgres']}/pixr",autocommit=True)
v0=db.execute("select count(*) from media.videos").fetchone()[0]
creators=[r[0] for r in db.execute("select id from media.creators order by id")]
model,dim=db.execute("select id,dimensions from media.models where active").fetchone()
rng=np.random.default_rng(1); t=time.time()
with db.cursor() as cur:
    with cur.copy("COPY media.videos (creator_id,source_uri,title,description,tags,duration_ms,width,height,fps,has_audio,container,codec,status,ready_at,pipeline_version,visibility) FROM STDIN") as cp:
        for i in range(N):
            cp.write_row((creators[i%len(creators)],f"s3://pixr/many/{i}.mp4",f"{WORDS[i]} film number{i}",f"A film of {WORDS[(i*7)%N]} with many common words, the sea and a city at night",["many",f"t{i%50}"],8000,256,144,25.0,False,"mp4","h264","ready","2026-11-20 10:00:00+00",1,"public" if i%20 else "unlisted"))
    ids={r[1]:r[0] for r in cur.execute("select id,source_uri from media.videos where source_uri like 's3://pixr/many/%'")}
    with cur.copy("COPY media.segments (video_id,creator_id,start_ms,end_ms,best_frame_ms,description,search,pipeline_version) FROM STDIN") as cp:
        for i in range(N):
            for s in (0,4000): cp.write_row((ids[f"s3://pixr/many/{i}.mp4"],creators[i%len(creators)],s,s+4000,s+2000,f"A film of {WORDS[(i*7)%N]} with many common words, the sea and a city at night","",1))
    cur.execute("update media.segments s set search=media.search_text(v.language,v.title,v.tags,s.description) from media.videos v where v.id=s.video_id and v.source_uri like 's3://pixr/many/%'")
    seg=cur.execute("select s.id,s.video_id,s.creator_id,s.start_ms,s.end_ms from media.segments s join media.videos v on v.id=s.video_id where v.source_uri like 's3://pixr/many/%'").fetchall()
    with cur.copy("COPY media.embeddings (model_id,segment_id,video_id,creator_id,start_ms,end_ms,embedding) FROM STDIN") as cp:
        for r in seg:
            x=rng.standard_normal(dim); x/=np.linalg.norm(x); cp.write_row((model,*r,"["+",".join(f"{y:.4f}" for y in x)+"]"))
    cur.execute("update media.generation set value=value+1"); cur.execute("analyze")
print("catalogue of",N,"more videos,",len(seg),"moments, made in",round(time.time()-t),"s; videos before",v0,flush=True)
IDS=[r[0] for r in db.execute("select id from media.videos where visibility='public' and status='ready'")]
ALL=db.execute("select id,title,visibility,status from media.videos").fetchall()
db.close()
OLDPG.stdin.write("\n"); OLDPG.stdin.flush(); OLDPG.wait(90); print(f"[{time.time()-T0:.1f}] old PostgreSQL has ended",flush=True)
th=threading.Thread(target=ask); th.start(); f=time.time(); time.sleep(1); u=pixr(NEW,"up"); g=time.time(); say("new: from one second before `pixr up` to its end",f,g); print("pixr up output:",u.stdout[-2500:],u.stderr[-2500:],flush=True); time.sleep(30); h=time.time(); say("new, 30 s after",g,h)
for what,test in (("first 200",lambda r:r[2]==200),("first search 200",lambda r:r[2]==200 and r[1]!="id"),("first search 200, not degraded",lambda r:r[2]==200 and r[1]!="id" and not r[3])):
    ok=[r[0]+r[4]-f-1 for r in rows if test(r)]; print(what,"answered",round(min(ok),1) if ok else None,"s after `pixr up` began",flush=True)
ok=[r[0] for r in rows if r[2]!=200]; print("last asked that was not 200:",round(max(ok)-f-1,1),"s after `pixr up` began; `up` took",round(g-f-1,1))
bins=collections.OrderedDict()
for r in sorted(rows): bins.setdefault(int((r[0]-f-1)//5)*5,collections.Counter())[(str(r[2])+(" "+str(r[3]) if r[2]==503 else "")+(" degraded" if r[2]==200 and r[3] else ""))]+=1
print({k:dict(v) for k,v in bins.items()},flush=True)
stop=True; th.join()
if u.returncode:
    for l in sorted((F/"logs").glob("*")) if (F/"logs").exists() else []: print("LOG",l.name,l.read_text(errors="replace")[-1200:] if l.is_file() else "")
    pixr(NEW,"down"); json.dump(rows,open("/tmp/v/seen2_old_rows.json","w")); raise SystemExit(1)
key=(F/"secrets/api_admin_key").read_text().strip(); B=f"http://127.0.0.1:{ports()['serve']}"
cl=httpx.Client(base_url=B,timeout=30,headers={"Authorization":"Bearer "+key})
def get(u,**p):
    while True:
        r=cl.get(u,params=p)
        if r.status_code not in (429,503): return r
        time.sleep(0.5)
miss=[];noid=[];pub=[x for x in ALL if x[2]=="public" and x[3]=="ready"]; rng2=random.Random(3)
some=[x for x in pub if not str(x[1]).startswith("zu")]+[x for x in pub if str(x[1]).startswith("zu")]; t1=time.time(); asked=0
for i,title,*_ in some:
    if time.time()-t1>240: break
    asked+=1
    j=get("/v1/search",q=f'"{title}"',intent="typing",limit=20).json()
    if str(i) not in {m["video_id"] for m in j["moments"]}: miss.append((i,title))
    r=get(f"/v1/videos/{i}"); 
    if r.status_code!=200 or r.json()["title"]!=title: noid.append((i,r.status_code))
    pid=r.json().get("public_id"); r2=get(f"/v1/videos/{pid}")
    if r2.status_code!=200 or r2.json()["id"]!=str(i): noid.append((i,pid,r2.status_code))
print("found by words and id over HTTP, asked",asked,"of",len(some),"in",round(time.time()-t1),"s",": not by words",miss[:5],len(miss),"not by id",noid[:5],len(noid),flush=True)
anon=httpx.Client(base_url=B,timeout=30); un=[x for x in ALL if x[2]=="unlisted"][:30]; print("unlisted by number to a stranger:",collections.Counter(anon.get(f"/v1/videos/{x[0]}").status_code for x in un))
sys.path.insert(0,NEW); os.environ.update(env(NEW))
from cluster import database, runtime, roles, settings as S
with database.connect(runtime.role_url(S.load(),roles.OWNER)) as k:
    print("public ready videos without words:",k.execute("select count(*) from media.videos v where status='ready' and visibility='public' and not exists (select from media.texts t where t.video_id=v.id)").fetchone()[0],
     "videos without public id:",k.execute("select count(*) from media.videos where public_id is null").fetchone()[0],"of",k.execute("select count(*) from media.videos").fetchone()[0],
     "migrations",k.execute("select package||'/'||name from pixr.migrations order by 1").fetchall()[-3:])
    z=k.execute("select package||'/'||name, applied_at from pixr.migrations where applied_at>to_timestamp(%s) order by 2",(T0,)).fetchall(); print("migrations of the new tree:",len(z),"from",round(z[0][1].timestamp()-f-1,1),"to",round(z[-1][1].timestamp()-f-1,1),"s after up began"); print([(b[0],round((b[1]-a[1]).total_seconds(),2)) for a,b in zip(z,z[1:]) if (b[1]-a[1]).total_seconds()>0.15],flush=True)
pixr(NEW,"status"); pixr(NEW,"audit","--full"); pixr(NEW,"down")
json.dump(rows,open("/tmp/v/seen2_old_rows.json","w"))
