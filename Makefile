# `make demo` shows a conversation's trace; `make test` runs everything. Both set themselves up in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
RUN := PYTHONPATH=. $(BIN)/python
# What downloads has a second attempt, as a connection may break.
twice = @echo "$(1)"; $(1) || { echo "once more, in 5 seconds" >&2; sleep 5; $(1); } || \
	{ echo "this could not be installed: can the package registry be reached from here?" >&2; exit 1; }
MINUTES ?= 10
FRAMEWORKS := .cache/frameworks
PEERS := .cache/peers

.PHONY: demo test check faults soak fuzz frameworks conformance collectors versions bench lint docs dashboards pictures lock clean

demo: $(VENV)/demo
	@mkdir -p .cache
	$(RUN) -m examples.demo --html .cache/demo.html

# The real Collector and Jaeger are built on the first run and kept in .cache.
test: $(VENV)/dev lint
	$(RUN) -m tests.stack.build
	$(BIN)/python -m pytest --cov --cov-report=term

# The fast subset: no Collector, no Jaeger.
check: $(VENV)/dev lint
	$(BIN)/python -m pytest -m "not stack"

# Every crash, outage and overload of docs/reliability.md, on the real Collector: about half an hour.
faults: $(VENV)/dev
	$(RUN) -m tests.stack.build
	$(RUN) -m tests.faults.emitter_outage --hurried
	$(RUN) -m tests.faults.suite

# A steady load for twenty minutes: what grows in the sidecar?
soak: $(VENV)/dev
	$(RUN) -m tests.stack.build
	$(RUN) -m tests.faults.soak

# Looks for input that breaks something. What is found lies in .cache/fuzz, and the next run goes on from there.
fuzz: $(VENV)/dev
	$(RUN) -m tests.fuzz --minutes $(MINUTES)

# What everything costs, each figure against something real (docs/performance.md): less than ten minutes.
bench: $(VENV)/dev
	$(RUN) -m tests.stack.build
	$(RUN) -m benchmarks $(BENCH)

# The examples for LiveKit and Pipecat, with the real frameworks in an environment of their own (600 MB).
frameworks: $(VENV)/dev $(FRAMEWORKS)/ready
	$(BIN)/python -m pytest tests/integration/test_frameworks.py

# What a trace should tell, asked of this project and of others, each in an environment of its own: ten minutes.
conformance: $(VENV)/dev $(FRAMEWORKS)/ready $(PEERS)/ready
	$(RUN) -m conformance --write-docs

# docs/collector.md on the newest and on the oldest Collector that it supports, which is built first: some minutes.
collectors: $(VENV)/dev
	$(RUN) -c "from tests.stack.build import ensure_oldest_collector; print(ensure_oldest_collector())"
	$(BIN)/python -m pytest tests/integration/test_collector_docs.py

# The emitter with the oldest and the newest versions of what it instruments: a quarter of an hour.
versions: $(VENV)/dev
	$(RUN) -m tests.versions

lint: $(VENV)/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# The pages that are made from the event table and the attribute registry.
docs: $(VENV)/dev
	$(RUN) -m docs.generate

# Grafana's dashboards, from deploy/grafana/source; and the rules of deploy/prometheus as Kubernetes takes them.
dashboards: $(VENV)/dev
	$(RUN) -m deploy.grafana.source
	$(RUN) -m deploy.kubernetes.monitoring

# The pictures of the documentation: pages of real conversations, and the dashboards, drawn from a real Prometheus behind some
# minutes of conversations. Needs a Chromium. Not exactly the same ones each time.
pictures: $(VENV)/dev
	$(RUN) -m tests.stack.build
	$(RUN) -m docs.generate.pictures
	$(RUN) -m tests.monitoring.pictures

# Hash-pinned for every platform and Python, without addresses. An installation needs nothing that is not listed.
lock: $(VENV)/dev
	$(call compile,requirements.lock,--extra sidecar --extra agents --group dev pyproject.toml)
	$(call compile,requirements-demo.lock,--extra sidecar --extra agents --group demo pyproject.toml)
	$(call compile,requirements-sidecar.lock,--extra sidecar pyproject.toml)
	$(call compile,requirements-build.lock,--group build)
	$(call compile,requirements-go.lock,--group go)
	$(call compile,requirements-frameworks.lock,--group frameworks pyproject.toml)
	$(call compile,requirements-peers.lock,--group peers)

compile = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate $(2) --output-file $(1)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo: $(BIN)/python requirements-demo.lock pyproject.toml
	$(call twice,$(INSTALL) --require-hashes --requirement requirements-demo.lock)
	$(INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/dev: $(BIN)/python requirements.lock pyproject.toml
	$(call twice,$(INSTALL) --require-hashes --requirement requirements.lock)
	$(INSTALL) --no-build-isolation --editable .
	@touch $@ $(VENV)/demo

$(FRAMEWORKS)/ready: requirements-frameworks.lock pyproject.toml $(VENV)/dev
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(FRAMEWORKS)
	$(BIN)/uv pip install --quiet --python $(FRAMEWORKS)/bin/python --no-deps --require-hashes -r requirements-frameworks.lock
	$(BIN)/uv pip install --quiet --python $(FRAMEWORKS)/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

$(PEERS)/ready: requirements-peers.lock $(VENV)/dev
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(PEERS)
	$(BIN)/uv pip install --quiet --python $(PEERS)/bin/python --no-deps --require-hashes -r requirements-peers.lock
	@touch $@

clean:
	rm -rf $(VENV) .cache
