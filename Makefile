# `make help` lists what there is to do.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench install clean

help: ## List what there is to do.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(INSTALLED) ## See it work: an embedded Valkey, a stand-in endpoint, a worker, a few hundred jobs.
	@$(BIN)/harasocial-dispatch demo

test: $(INSTALLED) ## Run every test.
	$(BIN)/python -m pytest

lint: $(INSTALLED) ## Check style, format and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED) ## Measure throughput and latency on this machine.
	$(BIN)/python -m tests.bench

install: $(INSTALLED) ## Make .venv, with everything for development in it.

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=24" "setuptools>=77" wheel
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test]"
	@mkdir -p .typing/harasocial_dispatch
	@for part in schemas ledger producer worker cli sandbox; do \
		ln -sfn ../../$$part .typing/harasocial_dispatch/$$part; done
	@touch $@

clean: ## Remove what the other targets made.
	rm -rf $(VENV) .typing build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
