cd /work/wt-run; export PYTHONPATH=$PWD:/tmp/v FAILS=/tmp/v/hostile_fails.log; rm -f $FAILS
for n in $(env | sed -n 's/^\(PIXR_[A-Z_]*\)=.*/\1/p'); do unset $n; done
date; .venv/bin/pytest -p insta -v -s -m slow tests/hostile 2>&1; date
