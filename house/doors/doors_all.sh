#!/bin/bash
# each step when the machine is quiet enough: load below 4 for half a minute, or 20 minutes have passed without /tmp/v/quiet
free() {
  local n=0 waited=0
  while [ $n -lt 3 ] && [ $waited -lt 1200 ]; do
    sleep 10
    if [ -e /tmp/v/quiet ]; then waited=0; n=0; continue; fi
    waited=$((waited+10))
    l=$(awk '{print int($1*10)}' /proc/loadavg); if [ $l -lt 40 ]; then n=$((n+1)); else n=0; fi
  done
}
step() { # name log command...
  local log=$1; shift
  free; echo "$(date +%T) begin $* load $(cut -d' ' -f1-3 /proc/loadavg)" >> /tmp/v/doors_all.log
  /tmp/v/calm "$@" > $log 2>&1
  echo "$(date +%T) end $* rc $? load $(cut -d' ' -f1-3 /proc/loadavg)" >> /tmp/v/doors_all.log
}
export PIXR_SUPERVISOR_START_TIMEOUT_S=900
step /tmp/v/doors_old.txt /tmp/v/doors_run.sh old
step /tmp/v/doors_new.txt /tmp/v/doors_run.sh new
step /tmp/v/doors_tests.log /tmp/v/doors_tests.sh
