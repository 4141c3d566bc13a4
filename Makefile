# Every target sets up what it needs from a bare Python 3.11 (or later) with pip. Nothing is
# installed outside .venv, and .venv is made again when pyproject.toml changes what it holds.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

# How many runs `make simulate` makes, or which (500..600); and the first one.
SEEDS ?= 1000
FIRST ?= 1

PIP_INSTALL = $(BIN)/python -m pip --disable-pip-version-check install --quiet

# pyright would ask the package index for newer versions of itself at every run.
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1

.DELETE_ON_ERROR:
.PHONY: help demo bench bench-full soak simulate faults test check lint types imports format clean

help:
	@echo "make demo     run the whole story on real input, with live progress"
	@echo "make test     run the tests"
	@echo "make check    lint, types, import directions, then the tests"
	@echo "make simulate SEEDS=1000   simulate workers under faults, by seeds (also 500..600, FIRST=500)"
	@echo "make simulate REPLAY=4711  show one seed's run, event by event"
	@echo "make bench    measure, beside the floor measured in the same run"
	@echo "make bench-full   the same with a million tasks; takes some ten minutes"
	@echo "make soak     ten minutes of load, to see whether memory stays flat"
	@echo "make faults   whole services under faults: SEEDS=20 of them, or SEED=7 alone"
	@echo "make format   format the code and sort the imports"
	@echo "make clean    remove .venv and everything generated (never a data directory)"
	@echo "PYTHON=...    the Python that .venv is made with (now: $(PYTHON))"

demo: .venv/run.stamp
	@$(BIN)/python -m examples.demo

bench: .venv/run.stamp
	@$(BIN)/python -m bench

bench-full: .venv/run.stamp
	@$(BIN)/python -m bench --full

soak: .venv/run.stamp
	@$(BIN)/python -m bench --full soak

simulate: .venv/dev.stamp
	@$(BIN)/python -m tests.simulation $(if $(REPLAY),--replay $(REPLAY),--seeds $(SEEDS) --first $(FIRST))

# The default of SEEDS is the simulation's: runs of whole services take half a minute each.
FAULT_SEEDS = $(if $(filter command environment,$(origin SEEDS)),$(SEEDS),20)
faults: .venv/dev.stamp
	@$(BIN)/python -m tests.faults.campaign $(if $(SEED),--seed $(SEED),--seeds $(FAULT_SEEDS))

# In several processes, as many as tests/conftest.py says; the early ones take over from the late.
test: .venv/dev.stamp
	@$(BIN)/pytest --numprocesses auto --dist worksteal

check: lint types imports
	@$(MAKE) --no-print-directory test

lint: .venv/dev.stamp
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { $(BIN)/ruff format --diff .; exit 1; }

types: .venv/dev.stamp
	@$(BIN)/pyright --pythonpath $(BIN)/python

imports: .venv/dev.stamp
	@$(BIN)/lint-imports --no-logo

format: .venv/dev.stamp
	@$(BIN)/ruff check --quiet --fix --select I .
	@$(BIN)/ruff format --quiet .

# The configuration file of the environment, since bin/python keeps the age of what it links to.
# Debian splits ensurepip off into a package of its own: pip of the outer Python then serves.
.venv/pyvenv.cfg:
	@test -n "$(PYTHON)" || { echo "No Python found: install Python 3.11 or later, or set PYTHON" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11: set PYTHON to a later one" >&2; exit 1; }
	@echo "Making .venv with $(PYTHON)"
	@$(PYTHON) -m venv --clear .venv >/dev/null 2>&1 || \
		{ $(PYTHON) -m venv --clear --without-pip .venv && \
		  $(PYTHON) -m pip --python .venv/bin/python install --quiet pip; }

.venv/run.stamp: pyproject.toml .venv/pyvenv.cfg
	@echo "Installing ledgerq"
	@$(PIP_INSTALL) --editable .
	@touch $@

.venv/dev.stamp: pyproject.toml .venv/pyvenv.cfg
	@echo "Installing ledgerq and what its tests need"
	@$(PIP_INSTALL) --editable '.[dev]'
	@touch .venv/run.stamp $@

clean:
	@rm -rf .venv build dist *.egg-info
	@rm -rf .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
