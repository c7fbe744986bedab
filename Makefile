# `make demo` and `make test` set up everything they need; a second time they are quick.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --prefer-binary --no-compile -c constraints.txt
# uv takes a tenth of pip's time. Where it cannot, for instance because pip alone is told of an index, pip does it.
UV := $(BIN)/python -m uv pip install --quiet --python $(BIN)/python -c constraints.txt
install = { $(PIP) uv && $(UV) $(1) 2>/dev/null; } || $(PIP) $(1)
# A run starts a dozen processes, a test run hundreds: what one has compiled the next need not.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test check bench bench-scale sample notebooks docs targets clean

help:
	@echo "make demo    set up, run the demo scenario three ways, write a report"
	@echo "make test    set up, run the whole test suite"
	@echo "make check   ruff, mypy --strict, import layers"
	@echo "make bench   costs as ratios against a baseline in the same run"
	@echo "make bench-scale  100,000 clients on this machine"
	@echo "make sample  a real demo run, copied to reports/sample"
	@echo "make targets  measure every bundled server that can run here: who notices a dead client, when"
	@echo "make docs    the documentation as a site, in site/"
	@echo "make notebooks  execute the notebooks again, keep light outputs"
	@echo "make clean   remove the virtual environment and caches (runs/ stays)"

$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "flatline needs Python 3.11 or newer, this is " + sys.version)'
	@echo "making the virtual environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.venv pyproject.toml constraints.txt
	@echo "installing flatline"
	@$(call install,-e .)
	@touch $@

$(VENV)/.dev: $(VENV)/.venv pyproject.toml constraints.txt
	@echo "installing flatline and its development tools"
	@$(call install,-e '.[dev]')
	@touch $@ $(VENV)/.run

demo: $(VENV)/.run
	@$(BIN)/flatline demo

# Tests with sockets mostly wait, so more of them than cores run side by side. Those that judge the machine's lag
# run one at a time. Beside both the tests on virtual time, which give way to everything (nice) and so may take long;
# a file of these stays in one worker, for its tests share what they simulate. Each worker imports every file that
# it is handed, so none gets a file without tests of its own; tests/conftest.py holds the files to these words.
# The files with the longest tests come first, or a worker has one of them left when all others have ended.
LONG_SOCKETS := tests/test_notebooks.py tests/harness/real/test_middle.py tests/harness/studies/test_target_check.py
LONG_VIRTUAL := $(addprefix tests/,harness/simulated/fleet/test_fleet_agreement.py reports/test_build.py harness/judge/test_agreement.py \
	harness/simulated/test_engine.py reports/test_figures.py test_docs.py)
test: $(VENV)/.dev
	@nice -n 19 $(BIN)/python -m pytest --timeout 600 --durations 12 -n 2 --dist loadfile --no-loadscope-reorder -m 'not real and not root' $(LONG_VIRTUAL) $$(grep -rLE --include='test_*.py' '^pytestmark = .*mark\.(real|root)' tests) > $(VENV)/virtual.log 2>&1 & virtual=$$!; \
	trap "kill $$virtual 2>/dev/null" INT TERM EXIT; \
	$(BIN)/python -m pytest --durations 12 -n 5 --dist worksteal -m '(real or root) and not alone' $(LONG_SOCKETS) $$(grep -rlE --include='test_*.py' 'mark\.(real|root)|ledger' tests); sockets=$$?; \
	$(BIN)/python -m pytest --durations 12 -m alone $$(grep -rl --include='test_*.py' 'mark\.alone' tests); alone=$$?; \
	wait $$virtual; virtual=$$?; cat $(VENV)/virtual.log; exit $$((sockets | alone | virtual))

check: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# Those of minutes; the long searches for what is wrong (fuzz, torture_bugs, agreement_false_alarms) are started by name.
BENCHES := heartbeat logins handshakes tls simulated fleet measure tune kernel_witness real_clients outsider dashboards
bench: $(VENV)/.dev
	@failed=; for bench in $(BENCHES); do echo "== bench/$$bench.py"; $(BIN)/python -m bench.$$bench --save docs/performance.json || failed="$$failed $$bench"; done; \
	$(BIN)/python docs/generate.py; \
	test -z "$$failed" || { echo "beyond their bounds:$$failed"; exit 1; }

# Five minutes, 3 GiB, two idle cores. The routine one is `$(BIN)/python -m bench.scale`: 20,000 clients, four minutes.
bench-scale: $(VENV)/.dev
	@$(BIN)/python -m bench.scale --clients 100000 --nodes 6 --rate 800 --save docs/performance.json

sample: $(VENV)/.run
	@$(BIN)/flatline demo
	@$(BIN)/python -m bench.make_sample latest

# What cannot run here is named, and is no success. Twenty minutes; the page in docs is made of the file that is kept.
targets: $(VENV)/.targets
	@if command -v npm >/dev/null; then npm ci --silent --prefix scenarios/targets/node; fi
	@$(BIN)/flatline target check --all --save docs/who-notices-a-dead-client.json
	@$(BIN)/python docs/generate.py

$(VENV)/.targets: $(VENV)/.dev
	@$(call install,-e '.[targets]')
	@touch $@

docs: $(VENV)/.dev
	@$(BIN)/python docs/generate.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

notebooks: $(VENV)/.dev
	@$(BIN)/python notebooks/render.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
