#!/bin/bash
V=/tmp/v
log() { echo "$(date +%T) $* load $(cut -d' ' -f1-3 /proc/loadavg)" >> $V/close.log; }
while pgrep -f chain_u.sh >/dev/null; do sleep 1; done
touch $V/quiet
for n in $(env | sed -n 's/^\(PIXR_[A-Z_]*\)=.*/\1/p'); do unset $n; done
cd /work/wt-run; log sieges begin $(git rev-parse --short HEAD)
( export PYTHONPATH=$PWD:/tmp/v FAILS=/tmp/v/sieges_fails.log; rm -f $FAILS; .venv/bin/pytest -p insta -v -s -m slow tests/hostile/test_mixed.py tests/hostile/test_named.py ) > $V/sieges.log 2>&1; log sieges rc $?
