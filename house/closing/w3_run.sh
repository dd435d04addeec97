#!/bin/bash
# w3_run.sh NAME pytest-args... : one pytest in the clone, in the background, with a log
name=$1; shift
cd /work/wt-walls3-env
PYTHONPATH=/tmp/v/w3plug setsid /tmp/v/calm .venv/bin/python -m pytest -q -p no:cacheprovider "$@" > /tmp/v/walls3-$name.log 2>&1 < /dev/null &
pid=$!; echo $pid > /tmp/v/walls3-pgid; wait $pid; echo "rc $? on $(git rev-parse --short HEAD) at $(date -u +%T)" >> /tmp/v/walls3-$name.log
