# make help lists the targets. Another Python: PYTHON=python3.12 make demo. Another place for the environment: make test VENV=/path.

PYTHON ?= python3
VENV = .venv
SHELL := /bin/sh
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint clean
.DELETE_ON_ERROR:

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' Makefile | while IFS='|' read -r name text; do printf 'make %-6s %s\n' "$$name" "$$text"; done

demo: $(VENV)/.installed  ## install into .venv, then run all three steps on the embedded default, offline
	$(BIN)/rlhf-lab run

test: $(VENV)/.installed-test  ## install into .venv, then run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.installed-dev  ## install into .venv, then check style, format and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

clean:  ## remove the environment, build products and caches; runs/ stays
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache
	find rlhf_lab classic scripts tests -type d -name __pycache__ -prune -exec rm -rf {} +

# Stamp files: an install runs again only when one of the files to its right is newer.
$(VENV)/.created:
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo "There is no '$(PYTHON)' here; rlhf_lab needs Python 3.11 or newer. Install one, then type: PYTHON=python3.12 make ..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is $$("$(PYTHON)" -V 2>&1); rlhf_lab needs Python 3.11 or newer. Type: PYTHON=python3.12 make ..." >&2; exit 1; }
	"$(PYTHON)" -m venv "$(VENV)"
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.created pyproject.toml constraints.txt
	$(INSTALL) -e ".[test]"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml constraints.txt
	$(INSTALL) -e ".[dev]"
	@touch $@
