# kill the ledger's worker, localnet, postgres in the middle of payouts
cd /srv/twice; P="./pixr --config configs/twice.toml"; PY=.venv/bin/python
V=330
for i in 1 2 3 4 5 6; do
 nice -n 5 $PY /tmp/s4twice-x/t.py 4,5,8 1 $V >/dev/null & T=$!; V=$((V+1))
 for d in 0.3 0.9 1.3; do sleep $d
  L=$($PY /tmp/s4twice-x/q.py reader "select owner from ledger.fence" | grep -o 'vm:[0-9]*' | cut -d: -f2)
  [ -n "$L" ] && [ "$(readlink /proc/$L/cwd)" != "" ] && grep -q -z 'twice' /proc/$L/environ && kill -9 $L && echo "killed ledger $L"
 done
 if [ $i = 3 ]; then LP=$(cat /tmp/s4twice-x/localnet.pid); kill -9 $LP; sleep 2; nohup nice -n 2 $PY -m ledger.localnet --port 8899 --data .pixr/solana > /tmp/s4twice-x/localnet.log 2>&1 & echo $! > /tmp/s4twice-x/localnet.pid; echo localnet killed; fi
 if [ $i = 5 ]; then kill -9 $(head -1 .pixr/postgres/postmaster.pid); echo postgres killed; fi
 wait $T
done
sleep 20; $P status | head -12; $P payouts | head -8; $P payouts stops; $P audit | grep ✗; $PY /tmp/s4twice-x/bal.py | grep -E 'creator [1-8]|in_fl'
