"""demo_twice.py DIR: make demo, take one video down, make demo again, compare; run as the user, in the clone."""
import json, os, subprocess, sys, time, urllib.request, collections
root = sys.argv[1]; os.chdir(root)
def sh(*a, quiet=True):
    t = time.time(); d = subprocess.run(a, capture_output=True, text=True); print(f"{' '.join(a)}: rc {d.returncode} in {time.time()-t:.0f} s", flush=True)
    if d.returncode or not quiet: print(d.stdout[-1500:], d.stderr[-1500:], flush=True)
    return d
STATE = r"""
import json, psycopg, decimal
def state():
    ports = json.load(open(".pixr/run/ports.json")); pw = open(".pixr/secrets/postgres").read().strip()
    db = psycopg.connect(f"postgresql://pixr:{pw}@127.0.0.1:{ports['postgres']}/pixr", autocommit=True)
    q = lambda s: db.execute(s).fetchall()
    return {"videos": q("select count(*), count(distinct content_hash), count(*) filter (where status='removed') from media.videos")[0],
            "status": dict(q("select status, count(*) from media.videos group by 1")), "segments": q("select count(*) from media.segments")[0][0],
            "payouts": q("select creator_id, count(*), sum(amount_pix) from ledger.payouts group by 1 order by 1"), "postings": q("select count(*) from ledger.transfers")[0][0],
            "batches": q("select kind, state, count(*) from ledger.batches group by 1, 2 order by 1, 2")}
print(json.dumps(state(), default=str))
"""
def state():
    return json.loads(subprocess.run([".venv/bin/python", "-c", STATE], capture_output=True, text=True, check=True).stdout)
one = sh("make", "demo"); print(one.stdout[-900:])
a = state(); print("after the first:", a, flush=True)
ports = json.load(open(".pixr/run/ports.json")); key = open(".pixr/secrets/api_admin_key").read().strip(); B = f"http://127.0.0.1:{ports['serve']}"
def call(method, path):
    r = urllib.request.Request(B + path, method=method, headers={"Authorization": "Bearer " + key})
    with urllib.request.urlopen(r) as f: return f.status, json.loads(f.read() or b"null")
first = call("GET", "/v1/videos?limit=1")[1]["videos"][0]; print("takedown of", first["id"], first["title"], call("DELETE", "/v1/videos/" + first["id"])[0]); time.sleep(5)
two = sh("make", "demo"); print(two.stdout[-900:]); b = state(); print("after the second:", b)
print("audit", sh(".venv/bin/pixr", "audit", "--full").stdout[-200:])
sh("make", "stop")
ok = one.returncode == two.returncode == 0 and a["videos"][0] == b["videos"][0] and b["status"].get("removed") == 1 and a["payouts"] == b["payouts"]
print("SAME" if ok else "DIFFERS", flush=True)
