#!/bin/bash
cd /tmp/s4stops-h
ss -ltn | grep -q 127.0.0.1:8900 || { (cd /srv/stops && PYTHONPATH=/srv/stops nohup .venv/bin/python -m ledger.localnet --port 8900 --data /srv/stops/.pixr/solana --slot-ms 100 >/tmp/s4stops-h/localnet.log 2>&1 & echo $! >/tmp/s4stops-h/localnet.pid); }
for p in 8950 8951; do ss -ltn | grep -q 127.0.0.1:$p || { nohup /srv/stops/.venv/bin/python proxy.py $p http://127.0.0.1:8900 >proxy$p.out 2>&1 & echo $! >proxy.$p.pid; }; done
sleep 2
CFG=/tmp/s4stops-h/t.toml ./p up
