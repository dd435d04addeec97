# lie.sh viewer '{json}' wait creators
cd /srv/twice; P="./pixr --config configs/twice.toml"; PY=.venv/bin/python
b() { $PY /tmp/s4twice-x/bal.py | grep -E "creator ([$(echo $4|tr -d ,)5]) |in_flight|payable.*[1-9][0-9]*\)$"; }
echo "=== $(date +%T) lie $2"; $PY -c "
from sys import path; path.insert(0,'/tmp/s4twice-x')
from lib import *
print('before moe',bal(kp('moe').pubkey()))"
echo "$2" > /tmp/s4twice-x/lie.json
nice -n 5 $PY /tmp/s4twice-x/t.py $4 1 $1; sleep $3
$P payouts | head -4; $P payouts stops; $PY /tmp/s4twice-x/q.py reader "select batch_id,n,signature,state,sends,last_valid_block_height,error from ledger.attempts order by signed_at desc limit 4"
$PY -c "
from sys import path; path.insert(0,'/tmp/s4twice-x')
from lib import *
print('during moe',bal(kp('moe').pubkey()))"
echo '{}' > /tmp/s4twice-x/lie.json; sleep ${5:-10}
$P payouts | head -4; $P payouts stops;  $PY /tmp/s4twice-x/bal.py | grep -E "creator [45678] |in_flight"; $P audit --full| grep -v ✓
