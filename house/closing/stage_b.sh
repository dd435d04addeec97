log() { echo "$(date +%T) $* load $(cut -d' ' -f1-3 /proc/loadavg)" >> /tmp/v/chain23.log; }
cd /work/wt-run; for n in $(env | sed -n 's/^\(PIXR_[A-Z_]*\)=.*/\1/p'); do unset $n; done
export PYTHONPATH=$PWD
log cut; .venv/bin/python -m pipelines.training.cut configs/models/pixr-emoji --seed 77 --measure > /tmp/v/cut.log 2>&1; log "cut rc $?"
log schema; FAILS=/tmp/v/schema_fails.log PYTHONPATH=$PWD:/tmp/v .venv/bin/pytest -p insta -v -s -m slow tests/serve/test_contract.py > /tmp/v/schema.log 2>&1; log "schema rc $?"
log takeover; sed 's#/work/wt-fin#/work/wt-run#g' /work/house/seen/seen2_old.py > /tmp/v/takeover.py; rm -rf /tmp/seen2-old; /work/main/.venv/bin/python /tmp/v/takeover.py > /tmp/v/takeover.log 2>&1; log "takeover rc $?"
log fuzz; .venv/bin/python -m pytest -p no:cacheprovider -m slow -q tests/pipelines -k fuzz > /tmp/v/fuzz.log 2>&1; log "fuzz rc $?"
unset PYTHONPATH
D="/home/pixrtest/your videos/pixr"; su pixrtest -c "mkdir -p '/home/pixrtest/your videos'; git clone -q /work/main '$D' && cd '$D' && git checkout -q --detach fa88ea3"
log demo user; su pixrtest -c "cd '$D' && /usr/bin/python3 /tmp/v/demo_twice.py '$D'" > /tmp/v/demo_user.log 2>&1; log "demo user rc $? $(tail -1 /tmp/v/demo_user.log)"
mkdir -p /root/closed; chmod 700 /root/closed; git clone -q /work/main "/root/closed/my pixr" && cd "/root/closed/my pixr" && git checkout -q --detach fa88ea3
log demo root; /usr/bin/python3 /tmp/v/demo_twice.py "/root/closed/my pixr" > /tmp/v/demo_root.log 2>&1; log "demo root rc $? $(tail -1 /tmp/v/demo_root.log)"
log end b
