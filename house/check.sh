#!/bin/bash
# check.sh TREE: compiles, imports every module, the gates, and collects the tests. Through /tmp/v/calm.
cd "$1" || exit 1
export PYTHONPATH=$PWD PYTHONDONTWRITEBYTECODE=1
V=.venv/bin
while [ -e /tmp/v/quiet ]; do sleep 5; done; echo "== compile"; $V/python - <<'P'
import ast, pathlib
for root in ("cluster","pipelines","serve","ledger","benchmarks","tests"):
    for f in pathlib.Path(root).rglob("*.py"):
        compile(f.read_text(), str(f), "exec")
P
while [ -e /tmp/v/quiet ]; do sleep 5; done; echo "== ruff"; $V/ruff format --check . | tail -5; $V/ruff check . --output-format concise | tail -40
while [ -e /tmp/v/quiet ]; do sleep 5; done; echo "== imports"; $V/python - <<'P'
import importlib, pathlib, traceback
bad = 0
for root in ("cluster","ledger","serve","pipelines","benchmarks"):
    for f in sorted(pathlib.Path(root).rglob("*.py")):
        if f.name == "__main__.py": continue
        m = ".".join(f.with_suffix("").parts).removesuffix(".__init__")
        if "clip_video_encode" in m: continue
        try: importlib.import_module(m)
        except BaseException as e:
            bad += 1; print("IMPORT", m, type(e).__name__, str(e)[:200])
print("bad", bad)
P
while [ -e /tmp/v/quiet ]; do sleep 5; done; echo "== lint-imports"; $V/lint-imports --no-cache 2>&1 | tail -60
while [ -e /tmp/v/quiet ]; do sleep 5; done; echo "== mypy"; $V/mypy 2>&1 | tail -60
while [ -e /tmp/v/quiet ]; do sleep 5; done; echo "== deptry"; $V/deptry . 2>&1 | tail -8
while [ -e /tmp/v/quiet ]; do sleep 5; done; echo "== collect"; $V/python -m pytest --collect-only -q 2>&1 | tail -15
while [ -e /tmp/v/quiet ]; do sleep 5; done; echo "== house"; $V/python -m pytest -q tests/test_house.py tests/test_rooms.py 2>&1 | tail -40
while [ -e /tmp/v/quiet ]; do sleep 5; done; echo "== done"
