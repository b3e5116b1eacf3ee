# `make` alone lists what there is to do. Everything lives in .venv; nothing is installed twice.

PYTHON ?= $(firstword $(wildcard /usr/bin/python3.11 /usr/bin/python3.12 /usr/bin/python3.13) python3)
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# Tests wait as much as they compute: three at a time keep two cores busy.
QUICK := $(PYTEST) -q -n 3 --dist worksteal -m 'not (slow or real or long or alone)'

PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check --no-input install -qq
# With --require-hashes a mirror or a folder of wheels (PIP_INDEX_URL, PIP_FIND_LINKS) may serve the files, never choose
# them. Without build isolation no build fetches a tool that is not pinned.
PINNED := $(PIP_INSTALL) --require-hashes --no-build-isolation --use-pep517
LOCK := $(BIN)/uv pip compile --quiet --no-config --generate-hashes --python-version 3.11 \
	--custom-compile-command 'make lock' $(LOCK_ARGS)

unexport PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_CONSTRAINT PIP_NO_BINARY PIP_ONLY_BINARY
# The tests start Python a thousand times: what was compiled is kept.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo run check test test-long bench bench-docs lint types lock clean debian-run debian-test

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

demo: debian-run $(VENV)/.dev ## a real Synapse, two users, EICAR; ONCE=1 ends after the table
	@$(BIN)/python -m tests.demo $(if $(ONCE),--once) $(if $(SIGNATURES),--signatures '$(SIGNATURES)') \
		$(if $(PICTURE),--picture '$(PICTURE)')

run: debian-run $(VENV)/.run ## scan in front of HOMESERVER, default http://127.0.0.1:8008
	@deploy/run.sh

check: debian-run lint types ## format, lint, types and the quick tests: under a minute
	$(QUICK)

test: debian-test lint types ## what CI runs: lint, types and every test but the long ones
	$(QUICK)
	$(PYTEST) -n 2 --dist loadscope -m '(slow or real) and not (long or alone)'
	$(PYTEST) -m 'alone and not long'

test-long: debian-test $(VENV)/.dev ## the tests that take longer than `make test` may
	$(PYTEST) -m long

bench: debian-test $(VENV)/.dev ## compare with other scanners, 3 to 5 minutes; BARS=1 judges
	@$(BIN)/python -m tests.bench run $(if $(BARS),--bars) $(if $(BUDGET),--budget $(BUDGET)) $(BENCH_ARGS)

bench-docs: $(VENV)/.dev ## put what `make bench` kept into docs/: table, plots, JSON
	@$(BIN)/python -m tests.bench publish

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/check-jsonschema -q --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/shellcheck .ci/run deploy/*.sh tests/bench/*.sh

types: $(VENV)/.dev
	$(BIN)/mypy

lock: debian-run $(VENV)/.dev ## pin the dependencies again; LOCK_ARGS=--upgrade: the newest
	echo 'setuptools>=77' | $(LOCK) --no-annotate -o requirements-build.txt -
	$(LOCK) -o requirements.txt pyproject.toml
	$(LOCK) -c requirements-build.txt -c requirements.txt --extra dev -o requirements-dev.txt pyproject.toml
	$(LOCK) --no-annotate -c requirements.txt -o tests/bench/reference/requirements.txt tests/bench/reference/requirements.in

clean: ## remove the virtual environment and everything generated
	rm -rf $(VENV) .bench .corpus *.egg-info build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

debian-run:
	@PYTHON='$(PYTHON)' deploy/bootstrap.sh

debian-test:
	@PYTHON='$(PYTHON)' deploy/bootstrap.sh --tests

# pip comes last, so a virtual environment without it was broken off.
$(BIN)/pip:
	$(PYTHON) -m venv --clear $(VENV)

$(VENV)/.run: requirements-build.txt requirements.txt pyproject.toml | $(BIN)/pip
	@$(PINNED) -r requirements-build.txt
	@deploy/patiently.sh 'Installing what the scanner needs' $(PINNED) -r requirements.txt
	@$(PIP_INSTALL) --no-deps --no-build-isolation --no-index --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	@deploy/patiently.sh 'Installing what the demo and the tests need, some minutes' $(PINNED) -r requirements-dev.txt
	@touch $@
