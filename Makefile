# `make help` lists the targets. Everything is installed in .venv.

# The first of these that exists and is new enough creates .venv. `make PYTHON=… TARGET` uses
# another.
PYTHON ?= python3 python3.13 python3.12 python3.11 python3.10
VENV := .venv
BIN := $(VENV)/bin
# Tests that start no processes.
UNIT_TESTS := tests/schemas tests/ledger_unit tests/worker_unit
PARTS := schemas ledger broker producer worker flower cli sandbox testing django_app
# The libraries in the comparison of the bench.
PEERS := $(patsubst tests/bench/requirements/%.txt,%,$(wildcard tests/bench/requirements/*.txt))

# The files of the build go to the folder in build.cfg, so that the repository stays clean. pip and
# setuptools are pinned like all other packages, so nothing is downloaded only for the build.
INSTALL = DIST_EXTRA_CONFIG=$(VENV)/build.cfg $(BIN)/python -m pip install -qq \
	--disable-pip-version-check --constraint constraints.txt

# The tests start hundreds of Python processes. Without bytecode files, each would compile this
# package.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test check lint docs links bench soak screenshots constraints clean

help: ## List the targets.
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/.for-demo ## Run a demo of the complete system with 309 jobs.
	@PYTHONDONTWRITEBYTECODE=1 $(BIN)/harasocial-dispatch demo

test: $(VENV)/.for-test ## Run every test.
	$(BIN)/pytest

check: lint ## Check style, format and types, and run the unit tests. Takes less than a minute.
	$(BIN)/pytest $(UNIT_TESTS)

lint: $(VENV)/.for-test .typing ## Check style, format, types and imports.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=.typing $(BIN)/lint-imports --no-logo --no-cache

docs: $(VENV)/.for-test ## Build the documentation as a website. A warning is an error.
	@$(BIN)/python docs/error_codes.py
	@$(BIN)/sphinx-build --nitpicky --fail-on-warning --keep-going --quiet --fresh-env \
		-c docs . build/site
	@echo "Open build/site/docs/index.html"

links: $(VENV)/.for-test ## Check the documentation's links to other sites. Needs the network.
	@$(BIN)/sphinx-build --builder linkcheck --quiet -c docs . build/links

bench: $(VENV)/.for-test $(PEERS:%=$(VENV)/peers/%/.made) ## Compare this package with other libraries on this machine. (BENCH=--quick)
	$(BIN)/python tests/bench $(BENCH)

soak: $(VENV)/.for-test ## Check for leaks: ten minutes of mixed traffic with faults. (SECONDS=600)
	$(BIN)/python tests/soak.py $(or $(SECONDS),600)

screenshots: $(VENV)/.for-test ## Regenerate the documentation's screenshots of Flower.
	$(BIN)/python -m pip install -qq pillow
	$(BIN)/python tests/flower/screenshots.py docs/images

constraints: $(VENV)/.made ## Pin the newest versions that setup.cfg allows in constraints.txt.
	$(BIN)/python -m pip install -qq uv
	DIST_EXTRA_CONFIG=$(VENV)/build.cfg UV_PYTHON_DOWNLOADS=never $(BIN)/uv pip compile --quiet \
		--python $(BIN)/python --universal --python-version 3.10 --extra test --upgrade \
		--custom-compile-command "make constraints" --annotation-style line \
		--output-file constraints.txt setup.cfg

clean: ## Remove the files that the other targets created.
	rm -rf $(VENV) .typing .mypy_cache .pytest_cache .ruff_cache .hypothesis build
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.made:
	@for python in $(PYTHON) none; do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && break; \
	done; \
	if [ $$python = none ]; then \
		echo "Python 3.10 or newer is required; found none of: $(PYTHON)." >&2; \
		echo "Install it, or set its path: make PYTHON=/path/to/python3.12 …" >&2; \
		exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$$python cannot create virtual environments: its modules venv and ensurepip are missing." >&2; \
		echo "On Debian and Ubuntu: sudo apt install python3-venv" >&2; \
		exit 1; \
	fi; \
	"$$python" -m venv $(VENV)
	@printf '[egg_info]\negg_base = $(VENV)\n' > $(VENV)/build.cfg
	@$(INSTALL) pip setuptools
	@touch $@

$(VENV)/.for-demo: $(VENV)/.made setup.cfg constraints.txt
	@echo "Installing the dependencies into $(VENV) …"
	@$(INSTALL) --no-build-isolation --editable ".[all]"
	@touch $@

$(VENV)/.for-test: $(VENV)/.made setup.cfg constraints.txt
	@echo "Installing the development dependencies into $(VENV) …"
	@$(INSTALL) --no-build-isolation --editable ".[test]"
	@touch $(VENV)/.for-demo $@

# Each library has its own environment, because they need different versions of redis-py. The bench
# skips libraries that could not be installed, and reports them.
$(VENV)/peers/%/.made: tests/bench/requirements/%.txt $(VENV)/.made
	@echo "Installing $* for the comparison into $(@D) …"
	@$(BIN)/python -m venv $(@D)
	@-$(@D)/bin/python -m pip install -qq --disable-pip-version-check --requirement $< && touch $@

# Links that give the folders their dotted names, for mypy and import-linter, which do not support
# the import finder of an editable installation.
.typing: Makefile
	@mkdir -p $@/harasocial_dispatch
	@for part in $(PARTS); do ln -sfn ../../$$part $@/harasocial_dispatch/$$part; done
	@ln -sfn ../tests $@/tests
	@ln -sfn ../tests/support $@/support
	@touch $@
