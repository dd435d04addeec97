#!/bin/bash
# fast gates in /work/wt-walls3
cd /work/wt-walls3; export PYTHONPATH=$PWD
B=/work/wt-walls3-env/.venv/bin
$B/ruff format --check . ; echo "format $?"
$B/ruff check . ; echo "ruff $?"
$B/mypy ; echo "mypy $?"
$B/lint-imports ; echo "lint-imports $?"
$B/deptry . 2>&1 | tail -20; echo "deptry ${PIPESTATUS[0]}"
