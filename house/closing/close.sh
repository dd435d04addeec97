#!/bin/bash
# close.sh COMMIT PARTS...: the long runs of a closing on a still machine, one after the other, into /tmp/v/close.log
# parts: hostile (40 min) doors (5) reason (2) rate (13) fuzz (?) demos (8) cases (20) suite (38, as an ordinary user)
C=$1; shift; V=/tmp/v
log() { echo "$(date +%T) $* load $(cut -d' ' -f1-3 /proc/loadavg)" >> $V/close.log; }
for n in $(env | sed -n 's/^\(PIXR_[A-Z_]*\)=.*/\1/p'); do unset $n; done
git -C /work/wt-run checkout -q --detach "$C" || exit 1
SHA=$(git -C /work/wt-run rev-parse --short HEAD); log "begin $SHA: $*"
cd /work/wt-run
for part in "$@"; do log "$part ..."; case $part in
  hostile) bash $V/hostile.sh > $V/hostile.log 2>&1;;
  doors) bash $V/doors_run.sh new > $V/doors_new.txt 2>&1;;
  reason) bash $V/reason.sh /work/wt-run > $V/reason.log 2>&1;;
  rate) bash $V/rate.sh $SHA 10 2 > $V/rate.log 2>&1;;
  fuzz) PYTHONPATH=$PWD .venv/bin/python -m pytest -p no:cacheprovider -m slow -q --timeout 7200 tests/pipelines -k fuzz > $V/fuzz.log 2>&1;;
  demos)
    D="/home/pixrtest/your videos/pixr"; rm -rf "$D"; su pixrtest -c "mkdir -p '/home/pixrtest/your videos'; git clone -q /work/main '$D' && cd '$D' && git checkout -q --detach $SHA"
    su pixrtest -c "cd '$D' && /usr/bin/python3 $V/demo_twice.py '$D'" > $V/demo_user.log 2>&1; log "demo user rc $? $(tail -1 $V/demo_user.log)"
    rm -rf "/root/closed/my pixr"; mkdir -p /root/closed; chmod 700 /root/closed; git clone -q /work/main "/root/closed/my pixr" && (cd "/root/closed/my pixr" && git checkout -q --detach $SHA && /usr/bin/python3 $V/demo_twice.py "/root/closed/my pixr" > $V/demo_root.log 2>&1; log "demo root rc $? $(tail -1 $V/demo_root.log)");;
  cases) rm -rf /tmp/fseen-data; bash $V/stage_c.sh > $V/stage_c.out 2>&1;;
  suite) rm -f $V/suite.log; bash $V/suite_user.sh $SHA $V/suite.log; tail -3 $V/suite.log >> $V/close.log;;
esac; log "$part rc $?"; done; log end
