#!/bin/bash
# one place for all: takes lines "NAME pytest-args" from the head of /tmp/v/w3_queue.txt; "!CMD" runs a command
while [ "$(date -u +%H%M)" -lt 1444 ]; do
  line=$(head -1 /tmp/v/w3_queue.txt 2>/dev/null)
  [ -z "$line" ] && { sleep 3; continue; }
  sed -i 1d /tmp/v/w3_queue.txt
  if [ "${line:0:1}" = "!" ]; then eval "${line:1}"; continue; fi
  set -- $line; name=$1; shift
  git -C /work/wt-walls3-env pull -q --ff-only /work/wt-walls3 walls3 2>>/tmp/v/walls3-queue.log
  echo "$(date -u +%T) begin $name $(git -C /work/wt-walls3-env rev-parse --short HEAD)" >> /tmp/v/walls3-queue.log
  eval "/tmp/v/w3_run.sh $name $*"
  echo "$(date -u +%T) end $name: $(tail -2 /tmp/v/walls3-$name.log | tr '\n' ' ')" >> /tmp/v/walls3-queue.log
done
