cd /work/wt-run; for n in $(env | sed -n 's/^\(PIXR_[A-Z_]*\)=.*/\1/p'); do unset $n; done
log() { echo "$(date +%T) $* load $(cut -d' ' -f1-3 /proc/loadavg)" >> /tmp/v/chain23.log; }
while pgrep -f "pytest -p insta -v -s -m slow tests/hostile$" >/dev/null; do sleep 3; done
export PYTHONPATH=$PWD
log "new on $(git rev-parse --short HEAD)"; bash /tmp/v/doors_run.sh new > /tmp/v/doors_new.txt 2>&1; log "new rc $?"
log words; .venv/bin/python -m cluster.cli bench search-words > /tmp/v/words.log 2>&1; log "words rc $?"
rm -f /tmp/v/quiet
log schema; FAILS=/tmp/v/schema_fails.log PYTHONPATH=$PWD:/tmp/v .venv/bin/pytest -p insta -v -s -m slow tests/serve/test_contract.py > /tmp/v/schema.log 2>&1; log "schema rc $?"
log end
