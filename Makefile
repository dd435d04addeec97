# The commands of this repository. `make demo` and `make test` set up everything they need.
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
.PHONY: help setup demo stop check docs test cover mutate simulate test-slow test-hostile test-browser test-gpu soak bench clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

setup: $(STAMP) ## the virtual environment with everything in it

$(STAMP): pyproject.toml constraints.txt configs/setup.sh
	bash configs/setup.sh $(VENV)
	touch $(STAMP)

demo: $(STAMP) ## the whole product on this machine: ingest, search, pay; leaves it running
	$(PY) -m cluster.cli --config configs/demo.toml demo

stop: $(STAMP) ## stop what `make demo` or `pixr up` left running; everything is kept
	$(PY) -m cluster.cli down

check: $(STAMP) ## the fast gates: format, lint, types, import rules, dependencies
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/deptry . 2>&1

test: check ## the gates and the suite on the real embedded services (about 40 minutes on 2 cores)
	$(PY) -m pytest --durations=15

docs: $(STAMP) ## the pages of all settings and metrics, from the code
	$(PY) -m cluster.cli docs settings --write
	$(PY) -m cluster.cli docs metrics --write

MONEY := money accrual.audience accrual.caps accrual.fold accrual.groups accrual.runs accrual.seen accrual.shared_networks \
  accrual.velocity accrual.vouching accrual.waiting appearances.spool creators.counters creators.wallets \
  journal.book journal.directory payouts.batches payouts.payouts payouts.planning payouts.rail payouts.resolutions \
  payouts.resolving payouts.settling payouts.signing risk.review risk.screening risk.stops solana.packing \
  solana.treasury solana.verdict
cover: $(STAMP) ## branch coverage of the modules that handle money: 100 %
	$(PY) -m pytest -q tests/ledger --ignore tests/ledger/simulator $(MONEY:%=--cov=ledger.%) --cov-branch \
	  --cov-report=term-missing --cov-fail-under=100

mutate: $(STAMP) ## does a test notice a change of the ledger's code? hours; ended at any time, it goes on where it was
	$(PY) -m benchmarks.mutations --write

simulate: $(STAMP) ## thousands of seeds of the ledger in bad weather; ended at any time, it goes on where it was
	$(PY) -m tests.ledger.simulator

test-slow: $(STAMP) ## fuzz, chaos, thousands of seeds
	$(PY) -m pytest -m slow --timeout 7200

test-hostile: $(STAMP) ## ten minutes of strangers at the door beside a quiet client (about 20 minutes)
	$(PY) -m pytest -m slow --timeout 1800 tests/hostile/test_mixed.py -k ten_minutes

test-browser: $(STAMP) ## the page in Chromium (need `chromium` on PATH)
	$(PY) -m pytest -m browser

test-gpu: $(STAMP) ## for the day there is a GPU
	$(PY) -m pytest -m gpu

soak: $(STAMP) ## ten minutes of load with kills
	$(PY) -m pytest -m soak --timeout 1800

bench: $(STAMP) ## every benchmark, appended to benchmarks/LOG.md
	$(PY) -m cluster.cli bench

clean: stop ## remove the data folder
	rm -rf .pixr
