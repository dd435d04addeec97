#!/bin/bash
# copy of an installed environment, then make setup completes it
set -e
cd /work/wt-walls3-env
rm -rf .venv
cp -a /work/main/.venv .venv
rm -rf .venv/lib/python3.11/site-packages/__editable__*pixr* .venv/lib/python3.11/site-packages/pixr-*.dist-info .venv/.installed .venv/bin/pixr
grep -lI '/work/main/.venv' .venv/bin/* | xargs sed -i 's#/work/main/.venv#/work/wt-walls3-env/.venv#g'
sed -i 's#/work/main/.venv#/work/wt-walls3-env/.venv#' .venv/pyvenv.cfg
make setup
.venv/bin/pixr --help | head -5
