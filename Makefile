# scratchd: `make run` tries it, `make test` proves it.
#
# All that is made lies below this directory: .venv (Python packages), .cache (test trees), var (what `make run` collects).

PYTHON ?= python3
# `make run KAFKA=host:port` sends every event to Kafka as well.
KAFKA ?=

export PYTHON
BIN := .venv/bin

# `make bench QUICK=1` is the short one; `make bench-compare A=main B=HEAD` compares two commits.
QUICK ?=
A ?= main
B ?= HEAD
BENCH := PYTHONPATH=$(CURDIR):$(CURDIR)/tests/integration $(BIN)/python

SYSTEM_TESTS := tests/integration/package tests/integration/rollout

.PHONY: help run check test test-system torture fuzz lint clean deb bench bench-compare bench-instances bench-steps flame

help: ## what there is to make
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile

run: .venv/.run ## try it: files only, below ./var, http://127.0.0.1:9006
	@mkdir -p var
	@sed -e 's|@VAR@|$(CURDIR)/var|' -e 's|@KAFKA@|$(KAFKA)|' -e 's|@KAFKA_ENABLED@|$(if $(KAFKA),true,false)|' \
		examples/quickstart.json.in > var/quickstart.json
	@echo "Send an event:   curl -i 'http://127.0.0.1:9006/track?foo=bar'"
	@echo "Look at it:      tail -f var/log/site/$$(date -u +%F).log"
	@echo "And at scratchd: $(BIN)/scratchd stats --config var/quickstart.json"
	@echo "$(if $(KAFKA),Topic:           scratch-site at $(KAFKA),Turn Kafka on:   make run KAFKA=host:port    (topic scratch-site))"
	@echo "Configuration:   var/quickstart.json          Stop: Ctrl-C"
	@exec $(BIN)/python -m scratchd serve --config var/quickstart.json

check: .venv/.dev lint ## lint, types and unit tests: a minute or two
	$(BIN)/pytest -q $(PARALLEL) tests/unit

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# Two processes, each with a broker of its own: integration tests wait more than they compute. A file is one's alone.
PARALLEL := -n 2 --dist loadfile

test: ## everything: installs what it needs, then lint, types, unit and integration tests
	@scripts/machine test
	@$(MAKE) --no-print-directory lint
	$(BIN)/pytest -ra --durations=10 $(PARALLEL) tests/unit tests/integration $(addprefix --ignore=,$(SYSTEM_TESTS))

# Each machine boots over root images that are made once for each list of packages and kept below .cache.
test-system: ## what needs a booted Debian 13 (root only): the package, systemd, rollouts, monitoring
	@scripts/machine test-system
	@$(MAKE) --no-print-directory .venv/.system
	$(BIN)/pytest -ra --durations=10 $(SYSTEM_TESTS)

deb: ## the Debian packages, built in a clean Debian 13, into dist/
	@scripts/machine deb
	@scripts/deb

bench: .venv/.bench ## scratchd beside Go, Hypercorn and nginx: a table, JSON and a chart; 20 minutes, QUICK=1: four
	$(BENCH) bench/run.py $(if $(QUICK),--quick)

bench-compare: .venv/.bench ## what commit B does slower than commit A
	$(BENCH) bench/compare.py $(A) $(B)

bench-instances: .venv/.bench ## two instances that share a socket, beside one alone
	$(BENCH) bench/instances.py

bench-steps: .venv/.bench ## what each step of the hot path costs by itself
	$(BENCH) bench/steps.py --fast --quiet

flame: .venv/.bench ## docs/hot-path.svg and hot-path-heavy.svg: where the time goes under full load
	$(BENCH) bench/flame.py
	$(BENCH) bench/flame.py --query heavy --out docs/hot-path-heavy.svg

# Each round is a life under load, a SIGKILL, perhaps starts that are killed too, and a start that lives.
torture: .venv/.dev ## kill it 200 times under load (ROUNDS=n), read everything back, print what was done
	@scripts/machine test
	SCRATCHD_TORTURE_ROUNDS=$(or $(ROUNDS),200) $(BIN)/pytest -q -s tests/integration/test_torture.py

# Inputs for each claim, and seconds at most. atheris has wheels for some versions of Python only, so nothing else needs it.
RUNS ?= 1000000
SECONDS ?= 600
CLAIMS ?= head conversation query

fuzz: .cache/fuzz/.atheris ## coverage-guided fuzzing: RUNS inputs for each of CLAIMS, SECONDS at most
	@for claim in $(CLAIMS); do \
		mkdir -p .cache/fuzz/$$claim && \
		PYTHONPATH=$(CURDIR) .cache/fuzz/venv/bin/python tests/fuzz/fuzz.py $$claim -runs=$(RUNS) -max_total_time=$(SECONDS) \
			-max_len=450 -print_final_stats=1 -artifact_prefix=.cache/fuzz/broken-$$claim- \
			-dict=tests/fuzz/$$(test $$claim = query && echo query || echo http).dict \
			.cache/fuzz/$$claim tests/unit/fuzz_corpus/$$claim || exit 1; \
	done

.cache/fuzz/.atheris: pyproject.toml
	@scripts/machine run
	@echo "Making .cache/fuzz/venv"
	@mkdir -p .cache/fuzz
	@$(PYTHON) -m venv .cache/fuzz/venv
	@.cache/fuzz/venv/bin/pip install --quiet --disable-pip-version-check --use-pep517 --editable . atheris h11
	@touch $@

clean: ## remove what was made, except for ./var
	rm -rf .venv .cache bench/results .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find scratchd tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps say with which pyproject.toml a virtual environment was filled: without a change pip is not run.
.venv/.run: pyproject.toml
	@scripts/machine run
	@echo "Making .venv"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --use-pep517 --editable .
	@touch $@

.venv/.dev: pyproject.toml
	@scripts/machine run
	@echo "Making .venv, with what tests need"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --use-pep517 --editable '.[dev]'
	@touch $@ .venv/.run

.venv/.system: pyproject.toml
	@scripts/machine run
	@echo "Making .venv, with what drives machines"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --use-pep517 --editable '.[dev,system]'
	@touch $@ .venv/.dev .venv/.run

.venv/.bench: pyproject.toml
	@scripts/machine bench
	@echo "Making .venv, with what benchmarks need"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --use-pep517 --editable '.[dev,bench]'
	@touch $@ .venv/.dev .venv/.run
