#!/bin/bash
# when it is quiet no more: the pages, then the gates
cd /work/wt-walls3; export PYTHONPATH=$PWD
B=/work/wt-walls3-env/.venv/bin
$B/python -m cluster.cli docs settings --write; $B/python -m cluster.cli docs metrics --write
git add -A; git commit -qm "The pages of settings and metrics, from the code"
/tmp/v/w3_gates.sh
