# mpush_tw: what people type. `make run` and `make test` need python3 (3.11 or newer,
# with venv) and nothing else.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := mpush_tw tests twisted examples
CONFIG ?= etc/mpush.conf

RUNNING := .run
ZOOKEEPER_JARS := /usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar

.PHONY: campaign run test lint check-types unit interop proxy-campaign clean mpload bench help up down node-a node-b

help:
	@echo "make run     start a push server with $(CONFIG)"
	@echo "make test    run linter, type checker and the whole test suite"
	@echo "make interop run our programs with the published Java original (four minutes)"
	@echo "make proxy-campaign"
	@echo "             ask 10,000 times through the HTTP proxy, in every way (a minute)"
	@echo "make up      start a Redis and a ZooKeeper on this machine, for development"
	@echo "make node-a  start the first of two nodes that use them; make node-b the second"
	@echo "make down    stop that Redis and ZooKeeper"
	@echo "make mpload  build the load generator in benchmarks/load"
	@echo "make bench   measure a node of this checkout (a few minutes)"
	@echo "make campaign  lose servers and nodes under load, and state the recovery times"
	@echo "make clean   remove what the other targets made"

run: $(VENV)/.installed
	PYTHONPATH=. $(BIN)/twistd --nodaemon --pidfile= mpush --config $(CONFIG)

node-a node-b: $(VENV)/.installed
	PYTHONPATH=. $(BIN)/twistd --nodaemon --pidfile= mpush --config etc/$@.conf

up:
	@command -v redis-server > /dev/null && command -v java > /dev/null && \
	  test -e /usr/share/java/zookeeper.jar || \
	  { echo "make up needs redis-server and zookeeper: on Debian and Ubuntu run" \
	         "'apt-get install redis-server zookeeper'."; exit 1; }
	@mkdir -p $(RUNNING)/zookeeper
	@redis-server --daemonize yes --bind 127.0.0.1 --port 6379 --save '' \
	  --dir $(CURDIR)/$(RUNNING) --pidfile $(CURDIR)/$(RUNNING)/redis.pid \
	  --logfile redis.log > /dev/null
	@nohup java -Xmx64m -cp $(ZOOKEEPER_JARS) \
	  org.apache.zookeeper.server.ZooKeeperServerMain etc/zookeeper-dev.cfg \
	  > $(RUNNING)/zookeeper.log 2>&1 & echo $$! > $(RUNNING)/zookeeper.pid
	@for port in 6379 2181; do for i in $$(seq 100); do \
	  (: < /dev/tcp/127.0.0.1/$$port) 2> /dev/null && continue 2; sleep 0.1; done; \
	  echo "nothing answers on port $$port; see $(RUNNING)/*.log"; exit 1; done
	@for name in redis zookeeper; do \
	  kill -0 $$(cat $(RUNNING)/$$name.pid) 2> /dev/null || \
	  { echo "$$name did not start: see $(RUNNING)/$$name.log; is its port in use?"; \
	    exit 1; }; done
	@echo "Redis on 127.0.0.1:6379 and ZooKeeper on 127.0.0.1:2181 run. Next: make" \
	      "node-a, and make node-b in another terminal. make down stops them."

down:
	@for name in redis zookeeper; do \
	  if [ -e $(RUNNING)/$$name.pid ]; then \
	    kill $$(cat $(RUNNING)/$$name.pid) 2> /dev/null; \
	    rm -f $(RUNNING)/$$name.pid; fi; done

test: lint check-types unit

lint: $(VENV)/.installed-test
	$(BIN)/ruff check $(SOURCES)

check-types: $(VENV)/.installed-test
	$(BIN)/mypy -p mpush_tw
	@for project in examples/plugins/*; do \
	  MYPYPATH=.:$$project $(BIN)/mypy -p $$(basename $$project/mpush_*) || exit 1; done

unit: $(VENV)/.installed-test
	PYTHONPATH=. $(BIN)/python -m twisted.trial --temp-directory=_trial_temp tests

interop: $(VENV)/.installed-test
	PYTHONPATH=. $(BIN)/python -m tests.interop

proxy-campaign: $(VENV)/.installed-test
	PYTHONPATH=. $(BIN)/python -m tests.web

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

campaign: $(VENV)/.installed-test
	PYTHONPATH=. $(BIN)/python -m tests.cluster.campaign

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .hypothesis _trial_temp* benchmarks/load/mpload $(RUNNING) \
	  tests/interop/java/target tests/interop/java/*/target
