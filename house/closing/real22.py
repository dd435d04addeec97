"""real22.py FOLDER DATA TREE PY: ingest FOLDER into a running stack, compare every video with ffprobe."""
import json, subprocess, sys, time, pathlib, os, psycopg, collections
folder, data, tree, py = sys.argv[1:5]
env = {k: v for k, v in os.environ.items() if not k.startswith("PIXR_")} | {"PYTHONPATH": tree, "PIXR_CONFIG": f"{tree}/configs/demo.toml", "PIXR_DATA_DIR": data}
def pixr(*a):
    t = time.time(); d = subprocess.run([py, "-m", "cluster.cli", *a], env=env, cwd=tree, capture_output=True, text=True)
    return d, time.time() - t
began = time.time()
d, took = pixr("ingest", folder, "--json", "--creator", "stranger") if "--creator" in sys.argv else pixr("ingest", folder, "--json")
print("ingest: exit", d.returncode, f"{took:.1f} s", d.stderr[-800:])
job = json.loads(d.stdout) if d.stdout.strip().startswith("{") else json.loads(d.stdout[d.stdout.index("{"):])
print({k: job[k] for k in ("id", "status", "videos", "error")})
for r in job.get("remarks", []): print("remark", json.dumps(r)[:300])
ports = json.load(open(f"{data}/run/ports.json"))
db = psycopg.connect(f"postgresql://pixr:{open(f'{data}/secrets/postgres').read().strip()}@127.0.0.1:{ports['postgres']}/pixr", autocommit=True)
rows = db.execute("SELECT v.id, v.source_uri, v.status, v.error, v.warning, v.duration_ms, v.width, v.height, v.fps, v.has_audio, v.codec, v.source_bytes, min(s.start_ms), max(s.end_ms), count(s.*)"
  " FROM media.videos v JOIN media.job_videos j ON j.video_id = v.id LEFT JOIN media.segments s ON s.video_id = v.id WHERE j.job_id = %s GROUP BY v.id ORDER BY v.source_uri", (job["id"],)).fetchall()
# the object in S3 is named by content; find the local file by size and hash of path in the job's list: by basename and size
local = collections.defaultdict(list)
for p in pathlib.Path(folder).rglob("*"):
    if p.is_file(): local[(p.name, p.stat().st_size)].append(p)
def probe(p):
    d = subprocess.run(["ffprobe", "-v", "error", "-show_streams", "-show_format", "-of", "json", str(p)], capture_output=True, text=True)
    j = json.loads(d.stdout or "{}"); v = [s for s in j.get("streams", []) if s.get("codec_type") == "video"]; a = [s for s in j.get("streams", []) if s.get("codec_type") == "audio"]
    best = None
    real = [s for s in v if not s.get("disposition", {}).get("attached_pic")]
    if real: best = next((s for s in real if s.get("disposition", {}).get("default")), real[0])
    out = {"err": d.stderr[-200:], "audio": bool(a), "format": j.get("format", {}).get("format_name"), "fdur": j.get("format", {}).get("duration")}
    if best:
        rot = 0
        for sd in best.get("side_data_list", []):
            if "rotation" in sd: rot = int(sd["rotation"])
        w, h = best.get("width", 0), best.get("height", 0)
        sar = best.get("sample_aspect_ratio", "1:1").split(":")
        if rot % 180: w, h = h, w
        q = subprocess.run(["ffprobe", "-v", "error", "-select_streams", str(best["index"]), "-show_entries", "packet=pts_time,duration_time,flags", "-of", "csv=p=0", str(p)], capture_output=True, text=True)
        pts = []
        for line in q.stdout.split():
            c = line.strip(",").split(",")
            try: pts.append((float(c[0]), float(c[1]) if len(c) > 1 and c[1] not in ("N/A", "") and c[1].replace(".", "").isdigit() else 0.0))
            except ValueError: pass
        out |= {"w": w, "h": h, "rot": rot, "sar": ":".join(sar), "codec": best.get("codec_name"), "n": len(pts), "dur": best.get("duration")}
        if pts:
            first = min(x[0] for x in pts); last = max(pts, key=lambda x: x[0]); out |= {"first": first, "last": last[0], "end": max(a + b for a, b in pts)}
            out["span"] = out["end"] - first
    return out
good = refused = odd = lost = 0; why = collections.Counter()
for r in rows:
    vid, uri, status, error, warning, dur, w, h, fps, audio, codec, size, s0, s1, n = r
    name = uri.rpartition("/")[2]
    cand = [p for (nm, sz), ps in local.items() for p in ps if sz == size and (nm == name or name.endswith(nm) or p.stem in name)]
    p = cand[0] if cand else None
    if status == "quarantined":
        refused += 1; why[error] += 1; o = probe(p) if p else {}
        print(f"REFUSED {name}: {error} | ffprobe: {({k: o.get(k) for k in ('format', 'codec', 'w', 'h', 'n', 'fdur')} | {'err': o.get('err', '')[:80]})}"); continue
    if status != "ready": lost += 1; print("LOST", name, status, error); continue
    o = probe(p) if p else {}
    bad = []
    span = o.get("span"); lens = [float(x) for x in (o.get("dur"), o.get("fdur")) if x not in (None, "N/A")] + ([span] if span else [])
    if not any(abs(dur / 1000 - x) <= 0.06 for x in lens): bad.append(f"length {dur} vs {lens}")
    if o.get("sar") in ("1:1", "0:1", None) and (w, h) != (o.get("w"), o.get("h")): bad.append(f"size {w}x{h} vs {o.get('w')}x{o.get('h')} rot {o.get('rot')}")
    elif o.get("sar") not in ("1:1", "0:1", None): bad.append(f"sar {o.get('sar')} {w}x{h} of {o.get('w')}x{o.get('h')}") if h != o.get("h") and w != o.get("w") else None
    if bool(audio) != o.get("audio"): bad.append(f"audio {audio} vs {o.get('audio')}")
    if s0 is None: bad.append("no segments")
    elif s0 != 0 or abs(s1 - dur) > 60: bad.append(f"segments {s0}..{s1} of {dur}")
    if bad: odd += 1; print("ODD", name, "; ".join(bad), "| warning", warning)
    else: good += 1
print(f"{len(rows)} videos: {good} as ffprobe's, {odd} to look at, {refused} refused, {lost} neither; job {job['status']}; files {sum(map(len, local.values()))}")
print(why)
