log() { echo "$(date +%T) $* load $(cut -d' ' -f1-3 /proc/loadavg)" >> /tmp/v/close.log; }
cd /work/wt-run; for n in $(env | sed -n 's/^\(PIXR_[A-Z_]*\)=.*/\1/p'); do unset $n; done
export PYTHONPATH=$PWD PIXR_DATA_DIR=/tmp/fseen-data PIXR_CONFIG=$PWD/configs/demo.toml; P=/work/main/.venv/bin/python
log demo for reports; $P -m cluster.cli --config configs/demo.toml demo > /tmp/v/c_demo.log 2>&1; log "rc $?"
sed "s#http://127.0.0.1:8000#http://127.0.0.1:$($P -c 'import json;print(json.load(open("/tmp/fseen-data/run/ports.json"))["serve"])')#" /work/house/seen/fseen_reports.py > /tmp/v/c_reports.py
$P /tmp/v/c_reports.py > /tmp/v/c_reports.log 2>&1; log "reports rc $?"
$P /tmp/v/r22/own50.py /tmp/fseen-data > /tmp/v/c_own.log 2>&1; log "own rc $?"
$P /tmp/v/r22/real22.py /tmp/v/cases/media /tmp/fseen-data $PWD $P > /tmp/v/c_cases.log 2>&1; log "cases rc $?"
$P /tmp/v/r22/real22.py /tmp/v/r22/files /tmp/fseen-data $PWD $P > /tmp/v/c_real.log 2>&1; log "real rc $?"
: > /tmp/v/c_jobs.log; for j in /tmp/v/cases/jobs/i*; do case $j in *i18*) run="capsh --drop=cap_dac_override,cap_dac_read_search -- -c";; *) run="bash -c";; esac
 echo "== $j" >> /tmp/v/c_jobs.log; $run "cd /work/wt-run && $P -m cluster.cli ingest $j" >> /tmp/v/c_jobs.log 2>&1; echo "exit $?" >> /tmp/v/c_jobs.log; done; log jobs done
$P -m cluster.cli audit --full > /tmp/v/c_audit.log 2>&1; log "audit rc $?"; $P -m cluster.cli status > /tmp/v/c_status.log 2>&1; $P -m cluster.cli down; log end c
