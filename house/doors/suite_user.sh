#!/bin/bash
# suite_user.sh COMMIT LOG [tests...]: the suite as pixrtest in a path with a space
C=$1 L=$2; shift 2
D="/home/pixrtest/my videos/pixr"
if [ ! -d "$D" ]; then su pixrtest -c "mkdir -p '/home/pixrtest/my videos'; git config --global --add safe.directory '*'; git clone -q /work/main '$D'"; fi
su pixrtest -c "cd '$D' && git fetch -q origin && git checkout -q --detach $C"
[ -e "$D/.venv/.installed" ] || su pixrtest -c "cd '$D' && make setup" >> $L 2>&1
install -d -o pixrtest /home/pixrtest/plug; cp /tmp/v/insta.py /home/pixrtest/plug/
su pixrtest -c "cd '$D' && FAILS=/home/pixrtest/fails.log PYTHONPATH=/home/pixrtest/plug setsid .venv/bin/python -m pytest -p insta --durations=25 $*" >> $L 2>&1
echo "rc $?" >> $L
