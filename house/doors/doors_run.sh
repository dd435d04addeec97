#!/bin/bash
# doors_run.sh old|new [arguments of doors_raw.py]: a stack of that tree, a small catalogue, the raw script, the stack's end
which=$1; shift
V=/tmp/v
if [ $which = old ]; then TREE=/work/wt-old; PY=/tmp/v/old-venv/bin/python; DATA=/tmp/old-doors
else TREE=/work/wt-run; PY=/work/main/.venv/bin/python; DATA=/tmp/new-doors; export PIXR_ECONOMICS_ADDRESS_DAY_MAX_PIX=6000; fi
for name in $(env | sed -n 's/^\(PIXR_[A-Z_]*\)=.*/\1/p'); do case $name in PIXR_ECONOMICS_ADDRESS_DAY_MAX_PIX|PIXR_SUPERVISOR_START_TIMEOUT_S) ;; *) unset $name;; esac; done
export PIXR_CONFIG=$TREE/configs/demo.toml PIXR_DATA_DIR=$DATA PYTHONPATH=$TREE
cd $TREE
PIXR="$PY -m cluster.cli"
trap '$PIXR down' EXIT
for try in 1 2 3; do $PIXR up && break; done; $PIXR status --json >/dev/null || true; grep -q '"phase": *"up"' $DATA/run/status.json || exit 1
if [ ! -e $V/doors-videos/manifest.csv ]; then
  cd /work/wt-run; PYTHONPATH=/work/wt-run /work/main/.venv/bin/python - <<'P'
from pathlib import Path
from pipelines import samples
from tests.hostile.conftest import pad
folder = Path("/tmp/v/doors-videos")
made = samples.write(folder, 4, 20, shots=(2, 2), seconds=(2.0, 2.2))
pad(folder / made[0].file, 40_000_000)
print([(each.file, each.title) for each in made])
P
  cd $TREE
fi
$PIXR ingest $V/doors-videos || exit 1
URL=$($PY -c 'from cluster import runtime, settings; print(runtime.serve_url(settings.load()))')
[ -n "$NO_INNER" ] || { echo "== inner"; timeout 300 $PY $V/inner_raw.py; }
[ -n "$NO_DOORS" ] || $PY $V/doors_raw.py --url $URL --data $DATA --tree $TREE --python $PY "$@"
echo "== pixr status"; $PIXR status; echo "== pixr audit"; $PIXR audit --full | tail -5
