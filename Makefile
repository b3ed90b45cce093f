# make demo: train on MNIST.  make test: the test suite.  make soak: every fault 20 times.
# make parity: one worker against Keras's `fit`.  make rounding: the numeric tests as other processors round.
# make notebooks: execute docs/notebooks, and render them for the site.
# make bench-quick: which of the documented claims of speed hold?
# make clusters: standalone masters, Spark Connect, firewalls, killed drivers; make clusters-quick: without what is slow.
# make site: the site, into site/; make site-serve: the same, and a server for it at port 8000 of this machine.
# Each makes .venv first if it is missing.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: demo demo-all test clusters clusters-quick parity parity-all keras-suite rounding soak notebooks lint types format site site-serve benchmarks java chromium clean

demo: $(VENV)/installed-demo java
	$(BIN)/python examples/demo.py

demo-all: $(VENV)/installed-demo java
	$(BIN)/python examples/demo.py --all

# These wait two minutes for executors to start and processes to end: `make clusters` and `make soak` run them.
PROCESSES := tests/spark/test_processes.py

test: $(VENV)/installed-dev java chromium
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder --ignore=$(PROCESSES)

# Every test has a limit of its own; these end what even that does not.
clusters: $(VENV)/installed-dev java
	timeout --kill-after=10 3600 $(BIN)/python -m pytest tests/clusters $(PROCESSES)

clusters-quick: $(VENV)/installed-dev java
	timeout --kill-after=10 900 $(BIN)/python -m pytest tests/clusters -m 'not slow'

rounding: $(VENV)/installed-dev java
	$(BIN)/python tests/rounding.py

# JAX whole, about a tenth of the others, and a dozen of Keras's own tests; `parity-all`: all, and the figures into
# benchmarks/results/parity.json.
parity: $(VENV)/installed-dev java
	$(MAKE) -j2 parity-cases parity-keras

.PHONY: parity-cases parity-keras
parity-cases: $(VENV)/installed-dev java
	$(BIN)/python tests/parity/run.py

parity-keras: $(VENV)/installed-dev java
	$(BIN)/python tests/parity/keras_suite.py -k "TerminateOnNaN or test_evaluate_flow or test_partial_loss"

parity-all: $(VENV)/installed-dev java
	$(BIN)/python tests/parity/run.py --all

# Keras's own tests with `distkeras.fit` in the place of `fit`; on all backends, and docs/keras_suite.md. After an
# interruption: tests/parity/keras_suite.py --all --go-on.
keras-suite: $(VENV)/installed-dev java
	$(BIN)/python tests/parity/keras_suite.py --all

soak: $(VENV)/installed-dev java
	DISTKERAS_SOAK=20 $(BIN)/python -m pytest tests/faults
	for n in $$(seq 20); do DISTKERAS_SOAK=1 $(BIN)/python -m pytest -q $(PROCESSES) || exit 1; done

# Of one: `make notebooks NAMES=faults`.
notebooks: $(VENV)/installed-dev java
	$(BIN)/python scripts/notebooks.py $(NAMES)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(VENV)/installed-dev
	$(BIN)/mypy

# Ten minutes on two idle cores: the ratios of speed that the documentation claims, and which claims no longer hold.
.PHONY: bench-quick
bench-quick: $(VENV)/installed-dev java
	$(BIN)/python benchmarks/quick.py

.PHONY: stubs package containers release floors
package: $(VENV)/installed-dev java
	VENV=$(VENV) scripts/package

# Needs Docker with its compose plugin.
containers: $(VENV)/installed-dev
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist
	scripts/try_containers

release: $(VENV)/installed-dev java
	VENV=$(VENV) scripts/release '$(VERSION)'

# The oldest versions that pyproject.toml allows, in an environment of their own. Minutes: not in .ci/run.
FLOORS := build/floors
floors: java
	mkdir -p build
	"$$(scripts/find-python)" -m venv $(FLOORS)
	$(FLOORS)/bin/python scripts/floors.py > build/floors.txt
	$(FLOORS)/bin/pip install --quiet --constraint build/floors.txt --editable '.[jax,tls,dashboard]' \
		hypothesis httpx psutil pytest pytest-xdist pyyaml regex scipy
	$(FLOORS)/bin/distkeras train --help > build/floors-help.txt
	KERAS_BACKEND=jax $(FLOORS)/bin/python -m pytest -q tests/center tests/algorithms tests/spark/test_training.py

stubs: $(VENV)/installed-dev
	$(BIN)/python scripts/stubs.py

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, in site/: a folder of files for any web server. Pages that are missing from the navigation and links that
# lead nowhere end the build: not with `--quiet`, which would hide them from MkDocs itself.
site: $(VENV)/installed-dev
	cd scripts && KERAS_BACKEND=jax ../$(BIN)/python -m website write
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	cd scripts && ../$(BIN)/python -m website check

site-serve: site
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory site 8000

java:
	@scripts/ensure-java

chromium:
	@scripts/ensure-chromium

$(BIN)/python:
	"$$(scripts/find-python)" -m venv $(VENV)

$(VENV)/installed-demo: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[jax,plot]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[dev]'
	@# It asks for the whole of TensorFlow beside tensorflow-cpu, for tokenizers that nothing here uses.
	$(PIP) --no-deps 'keras-hub==0.32.*'
	@touch $@

clean:
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
