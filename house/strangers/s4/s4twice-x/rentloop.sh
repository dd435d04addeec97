PY=/srv/twice/.venv/bin/python
cd /tmp/s4twice-x; $PY rent.py; (cd /srv/twice; nice -n 5 $PY /tmp/s4twice-x/t.py 4 1 $1); sleep 4; $PY -c "
from lib import *
m=kp('mal').pubkey(); print('after',bal(m),sol(m),'treasury sol',sol(treasury.pubkey()))"
