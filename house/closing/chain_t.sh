#!/bin/bash
# outages of COMMIT, then its suite as an ordinary user; still machine
C=706b161; V=/tmp/v
log() { echo "$(date +%T) $* load $(cut -d' ' -f1-3 /proc/loadavg)" >> $V/close.log; }
for n in $(env | sed -n 's/^\(PIXR_[A-Z_]*\)=.*/\1/p'); do unset $n; done
git -C /work/wt-run checkout -q --detach $C || exit 1; cd /work/wt-run; log begin $C outages suite
( export PYTHONPATH=$PWD:/tmp/v FAILS=/tmp/v/outage_fails.log; rm -f $FAILS; .venv/bin/pytest -p insta -v -s -m slow tests/hostile/test_still.py tests/hostile/test_kills.py ) > $V/outages.log 2>&1; log outages rc $?
bash $V/close.sh $C suite
