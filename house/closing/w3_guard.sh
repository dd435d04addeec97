#!/bin/bash
# stops the running pytest's process group while /tmp/v/quiet exists
stopped=
while sleep 2; do
  p=$(cat /tmp/v/walls3-pgid 2>/dev/null)
  if [ -e /tmp/v/quiet ]; then [ -n "$p" ] && [ -z "$stopped" ] && kill -STOP -- -$p 2>/dev/null && stopped=$p && echo "STOP $p $(date -u +%T)"
  elif [ -n "$stopped" ]; then kill -CONT -- -$stopped; echo "CONT $stopped $(date -u +%T)"; stopped=; fi
done
