# mpush_tw: what people type. `make run` and `make test` need python3 (3.11 or newer,
# with venv) and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := mpush_tw tests twisted
CONFIG ?= etc/mpush.conf

.PHONY: run test lint check-types unit clean mpload bench help

help:
	@echo "make run     start a push server with $(CONFIG)"
	@echo "make test    run linter, type checker and the whole test suite"
	@echo "make mpload  build the load generator in benchmarks/load"
	@echo "make bench   measure a node of this checkout (a few minutes)"
	@echo "make clean   remove what the other targets made"

run: $(VENV)/.installed
	PYTHONPATH=. $(BIN)/twistd --nodaemon --pidfile= mpush --config $(CONFIG)

test: lint check-types unit

lint: $(VENV)/.installed-test
	$(BIN)/ruff check $(SOURCES)

check-types: $(VENV)/.installed-test
	$(BIN)/mypy -p mpush_tw

unit: $(VENV)/.installed-test
	PYTHONPATH=. $(BIN)/python -m twisted.trial --temp-directory=_trial_temp tests

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "mpush_tw needs Python 3.11 or newer; set PYTHON=/path/to/it."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2> /dev/null || \
	  { echo "This Python lacks venv: on Debian and Ubuntu run" \
	         "'apt-get install python3-venv'."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.made setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --editable . --config-settings editable_mode=compat
	@touch $@

$(VENV)/.installed-test: $(VENV)/.made setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --editable '.[test]' --config-settings editable_mode=compat
	@touch $@ $(VENV)/.installed

mpload: benchmarks/load/mpload

benchmarks/load/mpload: benchmarks/load/mpload.c
	$(CC) -O2 -Wall -o $@ $< -lcrypto

bench: $(VENV)/.installed
	$(BIN)/mpush bench conn
	$(BIN)/mpush bench push
	$(BIN)/mpush bench push --ack

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .hypothesis _trial_temp* benchmarks/load/mpload
