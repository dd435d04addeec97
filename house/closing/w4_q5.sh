# What is still to run, in the clone with its own environment: bash /tmp/v/w4/q5.sh
cd /work/wt-walls3-env && git fetch -q /work/wt-walls3 walls3 && git checkout -q --detach FETCH_HEAD
run() { log=$1; shift; /tmp/v/calm .venv/bin/python -m pytest -q "$@" > /tmp/v/w4/$log 2>&1; echo rc $? >> /tmp/v/w4/$log; }
run r_serve1.log tests/serve/test_reposts.py tests/serve/search tests/serve/test_money.py
run r_serve2.log tests/serve --ignore tests/serve/search --ignore tests/serve/test_reposts.py --ignore tests/serve/test_money.py
run r_ledger.log tests/ledger/payouts tests/ledger/creators tests/ledger/test_rounds.py tests/ledger/test_actor.py tests/ledger/simulator
run r_rest.log tests/pipelines/jobs tests/pipelines/moments tests/pipelines/test_ingest.py tests/releases
