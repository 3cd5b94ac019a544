# Everything here runs on a machine with Python 3.11 or later and make; `make help` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# What runs, without what tests.
RUNS := $(VENV)/.runs
BENCH := .venv-bench
# The distribution's, if there is one, as for the service: what a version manager compiles is slower.
BENCH_PYTHON = $(shell /usr/bin/python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
  2>/dev/null && echo /usr/bin/python3 || echo $(PYTHON))
BENCH_ARGS :=
FAULTS_ARGS :=
TESTS :=
# A file of tests goes to one process. Tests wait half of the time, for each other's programs and for
# timeouts: there are two processes a core. Files keep their order, which puts the longest first, so
# that all processes end at about the same time.
WORKERS = $(shell $(PYTHON) -c 'import os; print(2 * (os.cpu_count() or 1))')
SHARES := --dist loadfile --no-loadscope-reorder
# A test that hangs ends its process after so many seconds, with a stack of each thread, and has failed.
# Its file goes on in another process, which begins with that test: after a few of them all is stopped.
HANGS := --timeout 300 --timeout-method thread --max-worker-restart 2
COVERAGE :=
COMPILE := $(BIN)/pip-compile --quiet --no-strip-extras --allow-unsafe --generate-hashes \
  --no-header --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
  --no-emit-options --no-config

# npm's lock pins by version and hash; the addresses that it adds are of no use to anybody here.
define STRIP_LOCK
const fs = require('node:fs'), lock = JSON.parse(fs.readFileSync('package-lock.json'));
for (const each of Object.values(lock.packages)) { delete each.funding; delete each.resolved; }
fs.writeFileSync('package-lock.json', JSON.stringify(lock, null, 2) + '\n');
endef
export STRIP_LOCK

.DEFAULT_GOAL := help
.PHONY: help run test lint check bench simulate table faults faults-postgres lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 18

run: $(RUNS) ## sandbox, listener and a till on this machine: the Cancel API tutorial, live
	$(BIN)/listener demo

# Tests start the command hundreds of times: it is compiled once.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(STAMP) ## every test; TESTS=tests/unit for some of them
	$(BIN)/pytest -q --numprocesses $(WORKERS) $(SHARES) $(HANGS) $(COVERAGE) $(TESTS)

lint: $(STAMP) node_modules/.installed ## format, lint, types, layers; of the JavaScript too (needs npm)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	npm run --silent lint

check: lint ## what a change must pass: lint, and every test with branch coverage of 95 %
	$(MAKE) --no-print-directory test \
	  COVERAGE="--cov --cov-report=term-missing:skip-covered --cov-fail-under=95"

bench: $(BENCH)/.installed ## measure against the peers (BENCH_ARGS=--speed: 7 minutes, --hostile: 5, --nodes: 12)
	$(BENCH)/bin/python -m bench $(BENCH_ARGS)

simulate: $(STAMP) ## many random histories and requests, by seed; of two nodes on PostgreSQL too
	$(BIN)/python -m tests.property.simulate
	$(BIN)/python -m tests.property.simulate --nodes 2 --scenarios 300
	$(BIN)/python -m tests.outside
	$(BIN)/python -m tests.property.decisions
	$(BIN)/python -m tests.property.paths
	TEST_EXAMPLES=100 $(BIN)/pytest -q tests/integration/test_schemathesis.py \
	  tests/integration/test_large_transaction.py

table: $(STAMP) ## play every fault of the sandbox, and write docs/faults.md
	$(BIN)/python -m tests.fault.table

faults: $(STAMP) ## kill, cut and storm for an hour (FAULTS_ARGS=--help); counts to docs/bench
	$(BIN)/pytest -q tests/fault
	$(BIN)/python -m tests.fault.long_run $(FAULTS_ARGS)

faults-postgres: $(STAMP) ## lose standbys; kill, pause and cut off 2 to 4 nodes a thousand times
	$(BIN)/pytest -q tests/fault/test_postgres_nodes.py tests/fault/test_postgres_standby.py \
	  tests/fault/long_patroni.py
	$(BIN)/python -m tests.fault.long_run --only nodes $(FAULTS_ARGS)

lock: $(STAMP) ## pin every dependency again, by hash
	$(COMPILE) --upgrade --extra postgres --output-file requirements.lock pyproject.toml
	$(COMPILE) --upgrade --extra dev --extra postgres --constraint requirements.lock \
	  --output-file requirements-dev.lock pyproject.toml
	$(COMPILE) --upgrade --extra postgres --constraint requirements.lock \
	  --output-file bench/requirements.lock bench/requirements.txt pyproject.toml
	npm update --silent --package-lock-only
	node -e "$$STRIP_LOCK"

clean: ## remove what was made here, the environment included
	rm -rf $(VENV) $(BENCH) node_modules bench/node_modules build dist .coverage* .mypy_cache .pytest_cache .ruff_cache \
	  .import_linter_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { \
	  echo "Python's venv is missing; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The checkout itself is not built, for which more would have to be installed: a .pth file lets Python
# find it, and the command is three lines.
define COMMAND
import sys, sysconfig
from pathlib import Path
paths = sysconfig.get_paths()
Path(paths["purelib"], "pockyt-listener-checkout.pth").write_text(f"{Path.cwd()}\n")
command = Path(paths["scripts"], "listener")
command.write_text(f"#!{sys.executable}\nfrom listener.cli import main\nmain()\n")
command.chmod(0o755)
endef
export COMMAND

$(RUNS): requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing $$(grep -c == requirements.lock) packages into $(VENV), this once:"
	$(BIN)/python -m pip install --disable-pip-version-check \
	  --require-hashes --requirement requirements.lock
	@test -e $(STAMP) || $(BIN)/python -c "$$COMMAND"
	@touch $@

$(STAMP): requirements-dev.lock pyproject.toml | $(BIN)/python
	@echo "Installing $$(grep -c == requirements-dev.lock) packages into $(VENV), this once; tools for tests included."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --require-hashes --requirement requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation --editable .
	@touch $@ $(RUNS)

# What looks at the JavaScript; what runs needs none of it.
node_modules/.installed: package-lock.json
	@command -v npm >/dev/null || { \
	  echo "make lint needs Node.js 20 or later with npm; on Debian: apt-get install nodejs npm" >&2; exit 1; }
	npm ci --silent
	@touch $@

# The peers have an environment of their own, and better-sqlite3 is compiled against Node's headers. As it
# comes, its SQLite syncs with fsync, which is dearer than the fdatasync of Python's: it gets that, too.
$(BENCH)/.installed: bench/requirements.lock bench/package.json
	rm -rf bench/node_modules
	test -x $(BENCH)/bin/python || $(BENCH_PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check \
	  --require-hashes --requirement bench/requirements.lock
	npm_config_nodedir=$$(node -p "require('path').resolve(process.execPath, '../..')") \
	  npm_config_build_from_source=true CFLAGS=-DHAVE_FDATASYNC=1 \
	  npm install --silent --no-audit --no-fund --prefix bench
	@touch $@
