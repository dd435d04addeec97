#!/bin/bash
# reason.sh CLONE [PYTHON]: how many seconds after submission `pixr jobs show` names why each of ten refused files is refused.
# Starts a stack of CLONE in /tmp/v/reason/data, makes ten files that are refused and five good ones, submits the folder as one job,
# asks `pixr jobs show ID --json` every second, prints a line a file, stops the stack. About 3 min on a still machine.
set -eu
clone=$(cd "${1:?a clone}" && pwd); python=${2:-/work/main/.venv/bin/python}
root=/tmp/v/reason; rm -rf $root/media; mkdir -p $root/media
for name in $(compgen -e | grep ^PIXR_); do unset $name; done
export PYTHONPATH=$clone PIXR_DATA_DIR=$root/data PIXR_CONFIG=$clone/configs/demo.toml
cd "$clone"
ff=$("$python" -c "import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())"); q="$ff -y -hide_banner -loglevel error"
x264="-c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 50"; m=$root/media
for n in 1 2 3 4 5; do $q -f lavfi -i "testsrc2=s=320x180:r=25:d=$((4 + n))" $x264 "$m/good$n.mp4"; done
cp "$m/good1.mp4" $root/base.mp4
# ten that are refused
"$python" - $root/base.mp4 "$m" <<'P'
import os, random, sys
base, m = open(sys.argv[1], "rb").read(), sys.argv[2]
def put(name, data): open(os.path.join(m, name), "wb").write(data)
random.seed(3)
put("bad01_unknown_codec.mp4", base.replace(b"avc1", b"zzz1"))
put("bad02_cut_before_index.mp4", base[: len(base) // 2])
put("bad03_empty.mp4", b"")
put("bad04_noise.mp4", random.randbytes(50_000))
put("bad05_text.mp4", b"this is a text\n" * 200)
put("bad06_page.mp4", b"<!DOCTYPE html><html><body>404 not found</body></html>" * 40)
put("bad07_playlist.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")
data = bytearray(base); at = data.find(b"mdat") + 8
data[at : at + (len(data) - at) * 9 // 10] = bytes((len(data) - at) * 9 // 10)
put("bad08_frames_zeroed.mp4", bytes(data))
P
$q -f lavfi -i testsrc2=s=80x60:r=10:d=1 $root/a.gif; cp $root/a.gif "$m/bad09_gif.mp4"
$q -f lavfi -i sine=d=3 -c:a aac "$m/bad10_sound_alone.mp4"
for f in "$m"/bad0[124-9]* "$m"/bad10* "$m"/good*; do printf '%s' "${SALT:-}" >> "$f"; done
pixr() { "$python" -m cluster.cli "$@"; }
trap 'pixr down' EXIT
pixr up > $root/up.log
"$python" - "$m" <<'P'
import json, subprocess, sys, time, httpx
from pathlib import Path
def pixr(*a):
    done = subprocess.run([sys.executable, "-m", "cluster.cli", *a], capture_output=True, text=True)
    if not done.stdout.strip():
        raise SystemExit(f"pixr {' '.join(a)}: {done.returncode} {done.stderr[-600:]}")
    return done.stdout
folder = Path(sys.argv[1])
bad = sorted(p.name for p in folder.iterdir() if p.name.startswith("bad"))
made = json.loads(pixr("keys", "create", "watcher", "--scope", "admin", "--json"))
key = made.get("key") or made.get("secret") or made.get("token")
url = "http://127.0.0.1:%s" % json.load(open("/tmp/v/reason/data/run/ports.json"))["serve"]
began = time.monotonic()
out = pixr("ingest", str(folder), "--detach", "--json")
print(f"`pixr ingest --detach` took {time.monotonic() - began:.1f} s; seconds below are since it was called (and since it returned)")
returned = time.monotonic()
job = json.loads(out)["id"]
said = {}
while len(said) < len(bad) and time.monotonic() - began < 300:
    text = httpx.get(f"{url}/v1/jobs/{job}", headers={"authorization": f"Bearer {key}"}).raise_for_status().text
    now, state = time.monotonic(), json.loads(text)
    def walk(value):
        if isinstance(value, dict):
            own = [v for v in value.values() if not isinstance(v, dict)]
            for name in bad:
                if name not in said and any(name in str(v) for v in own):
                    reason = next((str(value[k]) for k in ("reason",) if value.get(k)), "")
                    if reason:
                        said[name] = (now, reason)
            for v in value.values(): walk(v)
        elif isinstance(value, list):
            for v in value: walk(v)
    walk(state)
    if state.get("finished_at"):
        break
    time.sleep(0.2)
for name in bad:
    if name in said:
        when, reason = said[name]
        print(f"{when - began:6.1f} s ({when - returned:5.1f}) {name}: {reason[:140]}")
    else:
        print(f"  none        {name}")
worst = max((when - returned for when, _ in said.values()), default=float("nan"))
print(f"{len(said)} of {len(bad)} named; slowest {worst:.1f} s after the submission returned (under 20 wanted)")
print(json.dumps({k: v for k, v in state.items() if k in ("id", "status", "videos", "started_at", "finished_at")}))
json.dump(state, open("/tmp/v/reason/job.json", "w"), indent=1)
P
