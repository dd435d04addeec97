#!/bin/bash
# rate.sh COMMIT [VIDEOS=20] [PAIRS=3]: ingest's steady rate of COMMIT beside that of 7812ba8, by wall clock.
# Each turn (old, new, old, new …): Ray, PostgreSQL, S3 of its own; a warm-up job of 2 videos; one job of VIDEOS 1080p videos of
# 20 to 60 s through benchmarks/ingest.py's own `job` (steady: from the first decoder at work to the last frames stored).
# Needs a still machine (nothing else running) and /work/main/.venv. A turn takes about 1 min + 6 s a video on 2 still cores:
# 20 videos, 3 pairs: about 20 min. Results: /tmp/v/rate/results.jsonl and the last lines.
set -eu
commit=${1:?a commit}; videos=${2:-20}; pairs=${3:-3}
root=/tmp/v/rate; venv=${VENV:-/work/main/.venv}; python=$venv/bin/python
mkdir -p $root/data; chmod 755 $root; results=$root/results.jsonl; : > $results
for each in "old 7812ba8" "new $commit"; do
  set -- $each
  [ -d $root/$1 ] || git clone -q --no-hardlinks /work/main $root/$1
  git -C $root/$1 fetch -q /work/main '+refs/heads/*:refs/remotes/all/*'
  git -C $root/$1 checkout -q --detach "$(git -C /work/main rev-parse "$2^{commit}")"
done
for name in $(compgen -e | grep ^PIXR_); do unset $name; done
cat > $root/files.py <<'P'
import sys
from benchmarks import ingest, ingest_files
from cluster import settings
made = settings.load()
base = ingest_files.base(made, 1920, 1080)
for n in range(int(sys.argv[1])):
    print(ingest_files.lengthened(made, base, ingest.SECONDS[n % len(ingest.SECONDS)], 2 * n))
P
cat > $root/turn.py <<'P'
import json, sys
from pathlib import Path
from benchmarks import ingest
from cluster import settings
from pipelines.settings import ModelSettings
which, files = sys.argv[1], [Path(line) for line in open(sys.argv[2]).read().split("\n") if line]
if Path(ingest.__file__).parents[1].name != which:
    raise SystemExit(f"{ingest.__file__} is not of {which}")
made = settings.load()
model = made.section(ModelSettings).name
with ingest.stack(made) as (stack, connection):
    ingest.job(stack, connection, files[:2], model)
    done = ingest.job(stack, connection, files, model)
steady = done.steady
print(json.dumps({"which": which, "videos": len(files), "frames": steady.frames, "steady_s": round(steady.wall_s, 1),
  "frames_a_s": round(steady.rate, 1), "video_seconds_a_s": round(steady.rate / 30, 3), "cpu_s": round(steady.cpu_s, 1),
  "frames_a_cpu_s": round(steady.yielded, 1), "whole_s": round(done.whole.wall_s, 1)}), flush=True)
P
run() { (cd "$root/$1" && PIXR_DATA_DIR=$root/data PYTHONPATH="$root/$1" "$python" "${@:2}"); }
run new $root/files.py $videos > $root/files.txt
for n in $(seq $pairs); do
  for which in old new; do
    run $which $root/turn.py $which $root/files.txt 2> $root/$which.log | tee -a $results || { tail -5 $root/$which.log; exit 1; }
  done
done
"$python" - $results <<'P'
import json, statistics, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
for key in ("frames_a_s", "frames_a_cpu_s"):
    old, new = ([row[key] for row in rows if row["which"] == which] for which in ("old", "new"))
    ratios = [b / a for a, b in zip(old, new, strict=True)]
    print(f"{key}: old {statistics.median(old)}, new {statistics.median(new)}; new/old of each pair "
          f"{[round(r, 3) for r in ratios]}, median {statistics.median(ratios):.3f} (>= 0.98 wanted of frames_a_s)")
short = [row for row in rows if row["steady_s"] < 60]
if short:
    print(f"{len(short)} turns were steady for less than 60 s: take more videos")
P
