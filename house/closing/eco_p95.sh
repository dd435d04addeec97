#!/bin/bash
# eco_p95.sh [OLD=main] [NEW=w-eco4] [PAIRS=3]: p95 of uncached searches of NEW beside OLD, in pairs (old new, new old, ...).
# One PostgreSQL with 200,000 x 512 synthetic vectors (copied from a catalogue that is there, else made, ~4 min) for both; each turn
# has Ray, Redis, the door and Serve of its own, asks distinct texts (by words and vectors, 20 moments) that no answer is kept of: one
# client, then 4 side by side, 12 s each. A turn takes about 70 s: 3 pairs in about 8 min. Needs a still machine.
# Results: /tmp/v/eco_p95/results.jsonl and the last lines. Bar: median new/old of p95 <= 1.05, of CPU a request <= 1.05.
set -eu
old=${1:-main}; new=${2:-w-eco4}; pairs=${3:-3}; rows=${ROWS:-200000}; seconds=${SECONDS_EACH:-12}
root=/tmp/v/eco_p95; python=${VENV:-/work/main/.venv}/bin/python; results=$root/results.jsonl
mkdir -p $root; : > $results
for name in $(compgen -e | grep ^PIXR_ || true); do unset $name; done
for each in "old $old" "new $new"; do
  set -- $each
  [ -d $root/$1 ] || git clone -q --no-hardlinks /work/main $root/$1
  git -C $root/$1 fetch -q /work/main '+refs/heads/*:refs/remotes/all/*'
  git -C $root/$1 checkout -q --detach "$(git -C /work/main rev-parse "$2^{commit}")"
done
there=/work/wt-run/.pixr/search-$rows
if [ ! -e $root/data-$rows/corpus.json ] && [ -e $there/corpus.json ] && [ -z "$(find $there -name postmaster.pid)" ]; then
  cp -a --reflink=auto $there $root/data-$rows.part && mv $root/data-$rows.part $root/data-$rows
fi
cat > $root/turn.py <<'P'
"""One turn, by the code of the folder that it is run in: what clients saw, and CPU a request."""
import dataclasses, json, sys, tempfile
from pathlib import Path

def bodies(search_http, count):
    said = search_http.texts(search_http.NEAR, count)
    asked = {"limit": 20, "intent": "typing", "relevance_min_ppm": 0}
    return [json.dumps({"text": text} | asked).encode() for text in said]

def main():
    which, url, queries, seconds = sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4])
    import serve
    from benchmarks import search_http, search_load
    from benchmarks.ground import ray_and_redis
    from cluster import database, settings
    assert Path(serve.__file__).parents[1].name == which, serve.__file__
    scans = "SELECT coalesce(sum(idx_scan), 0)::bigint FROM pg_stat_user_indexes WHERE indexrelname = 'videos_first_public'"
    def first_public():
        with database.connect(url, autocommit=True) as connection:
            return connection.execute(scans).fetchone()[0]
    with tempfile.TemporaryDirectory(prefix="eco-") as folder:
        own = dataclasses.replace(settings.load(), data_dir=Path(folder))
        before_scans = first_public()
        with ray_and_redis(own, url) as through:
            port = search_http.start(through)
            with search_http.serving(through, queries):
                for clients in (1, 4):
                    given = [(port, bodies(search_http, 3000)) for _ in range(clients)]
                    before = search_http.Spent.now(url)
                    seen = search_load.load(search_load.fresh_client, given, seconds)
                    total = len(seen.latencies_ms) * (seconds + search_load.WARM_S) / seconds
                    spent = search_http.Spent.now(url).since(before, total)
                    print(json.dumps({
                        "which": which, "clients": clients, "rate": round(seen.rate, 1),
                        **{f"p{share}_ms": round(seen.percentile(share), 2) for share in (50, 95, 99)},
                        "cpu_ms": round(sum(spent.values()), 2),
                        **{f"cpu_{stage}": round(value, 2) for stage, value in spent.items() if value > 0},
                    }), flush=True)
        print(which, "has asked the index of first files", first_public() - before_scans, "times", file=sys.stderr, flush=True)

if __name__ == "__main__":
    main()
P
cat > $root/turns.py <<'P'
"""PostgreSQL with the catalogue, by the newer code, for all turns."""
import dataclasses, os, subprocess, sys
from pathlib import Path

def main():
    root, rows, pairs, seconds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    from benchmarks import search_corpus
    from cluster import database, settings
    own = dataclasses.replace(settings.load(), data_dir=root / f"data-{rows}")
    with search_corpus.corpus(own, rows) as corpus:
        with database.connect(corpus.url, autocommit=True) as connection:  # as of files
            connection.execute("UPDATE media.videos SET content_hash = md5(id::text) || md5(source_uri) WHERE content_hash IS NULL")
            connection.execute("VACUUM ANALYZE media.videos")
            connection.execute("CHECKPOINT")
        for pair in range(pairs):
            for which in ("old", "new") if pair % 2 == 0 else ("new", "old"):
                folder = root / which
                environment = {**os.environ, "PYTHONPATH": str(folder)}
                argv = [sys.executable, str(root / "turn.py"), which, corpus.url, str(own.data_dir / "queries.npz"), seconds]
                with open(root / f"{which}.log", "ab") as log:
                    done = subprocess.run(argv, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
                lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
                with open(root / "results.jsonl", "a") as out:
                    out.writelines(line + "\n" for line in lines)
                print(*lines, sep="\n", flush=True)
                if done.returncode or len(lines) != 2:
                    sys.exit(f"a turn of {which} has failed: see {root / which}.log")

if __name__ == "__main__":
    main()
P
rm -f $root/old.log $root/new.log
(cd $root/new && PYTHONPATH=$root/new "$python" $root/turns.py $root $rows $pairs $seconds) || { tail -5 $root/old.log $root/new.log; exit 1; }
grep -h "has asked the index" $root/old.log $root/new.log
"$python" - $results <<'P'
import json, statistics, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
for clients in (1, 4):
    for key in ("p50_ms", "p95_ms", "p99_ms", "cpu_ms", "rate"):
        old, new = ([row[key] for row in rows if row["which"] == which and row["clients"] == clients] for which in ("old", "new"))
        ratios = [b / a for a, b in zip(old, new, strict=True)]
        print(f"{clients} client(s), {key}: old {statistics.median(old)}, new {statistics.median(new)}; new/old of each pair "
              f"{[round(ratio, 3) for ratio in ratios]}, median {statistics.median(ratios):.3f}")
P
