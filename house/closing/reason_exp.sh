#!/bin/bash
for n in 1 2; do for c in /work/wt-run /work/wt-facts; do rm -rf /tmp/v/reason/data; echo "== $c $(git -C $c rev-parse --short HEAD) $(date +%T) load $(cut -d' ' -f1 /proc/loadavg)"; bash /tmp/v/reason.sh $c; sleep 5; done; done > /tmp/v/reason_exp.log 2>&1
