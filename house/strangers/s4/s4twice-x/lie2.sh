# lie2.sh viewer '{json}' wait after
cd /srv/twice; P="./pixr --config configs/twice.toml"; PY=.venv/bin/python
m() { $PY -c "
from sys import path; path.insert(0,'/tmp/s4twice-x')
from lib import *
c=db(); print('$1 moe chain',bal(kp('moe').pubkey()),'payable',c.execute(\"select balance from ledger.accounts where kind='payable' and owner=5\").fetchone()[0],[tuple(map(str,r)) for r in c.execute('select n,left(signature,6),state,sends,error from ledger.attempts order by signed_at desc limit 3')], [tuple(map(str,r)) for r in c.execute('select id,state from (select p.id,b.state from ledger.payouts p join ledger.batches b on b.id=p.batch_id order by p.id desc limit 2)x')])"; }
echo "=== $(date +%T) lie $2"; m before
echo "$2" > /tmp/s4twice-x/lie.json
nice -n 5 $PY /tmp/s4twice-x/t.py 5 1 $1; sleep $3; m during
echo '{}' > /tmp/s4twice-x/lie.json; sleep $4; m after; $P payouts stops; $P audit | grep ✗
