# `make help` lists what there is to do. All that is installed goes into .venv.

# The first of these that is there and new enough makes .venv; `make PYTHON=… TARGET` takes another.
PYTHON ?= python3 python3.13 python3.12 python3.11 python3.10
VENV := .venv
BIN := $(VENV)/bin
# Tests that start no process.
UNIT_TESTS := tests/schemas tests/ledger_unit tests/worker_unit
PARTS := schemas ledger broker producer worker flower cli sandbox testing django_app
# Libraries that the bench compares with.
PEERS := $(patsubst tests/bench/requirements/%.txt,%,$(wildcard tests/bench/requirements/*.txt))

# Building an installed package leaves files of its own: they go where build.cfg says, and the
# repository stays clean. pip and setuptools are pinned like everything else, so nothing is
# fetched for the build alone.
INSTALL = DIST_EXTRA_CONFIG=$(VENV)/build.cfg $(BIN)/python -m pip install -qq \
	--disable-pip-version-check --constraint constraints.txt

# The tests start hundreds of Pythons, which would each compile this package again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test check lint docs links bench soak screenshots constraints clean

help: ## List what there is to do.
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/.for-demo ## See it work: an embedded Valkey, a stand-in endpoint, a worker, some hundred jobs.
	@PYTHONDONTWRITEBYTECODE=1 $(BIN)/harasocial-dispatch demo

test: $(VENV)/.for-test ## Run every test.
	$(BIN)/pytest

check: lint ## Check style, format and types, and run the unit tests: less than a minute.
	$(BIN)/pytest $(UNIT_TESTS)

lint: $(VENV)/.for-test .typing ## Check style, format, types and imports.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=.typing $(BIN)/lint-imports --no-logo --no-cache

docs: $(VENV)/.for-test ## Build the documentation as a website; a warning is an error.
	@$(BIN)/python docs/error_codes.py
	@$(BIN)/sphinx-build --nitpicky --fail-on-warning --keep-going --quiet --fresh-env \
		-c docs . build/site
	@echo "Open build/site/docs/index.html"

links: $(VENV)/.for-test ## Check the documentation's links to other sites. Needs the network.
	@$(BIN)/sphinx-build --builder linkcheck --quiet -c docs . build/links

bench: $(VENV)/.for-test $(PEERS:%=$(VENV)/peers/%/.made) ## Measure it on this machine, beside other libraries. (BENCH=--quick)
	$(BIN)/python tests/bench $(BENCH)

soak: $(VENV)/.for-test ## Ten minutes of mixed traffic with faults; does anything grow? (SECONDS=600)
	$(BIN)/python tests/soak.py $(or $(SECONDS),600)

screenshots: $(VENV)/.for-test ## Take the documentation's pictures of Flower again.
	$(BIN)/python tests/flower/screenshots.py docs/images

constraints: $(VENV)/.made ## Pin the newest versions that fit setup.cfg in constraints.txt.
	$(BIN)/python -m pip install -qq uv
	DIST_EXTRA_CONFIG=$(VENV)/build.cfg UV_PYTHON_DOWNLOADS=never $(BIN)/uv pip compile --quiet \
		--python $(BIN)/python --universal --python-version 3.10 --extra test --upgrade \
		--custom-compile-command "make constraints" --annotation-style line \
		--output-file constraints.txt setup.cfg

clean: ## Remove what the other targets made.
	rm -rf $(VENV) .typing .mypy_cache .pytest_cache .ruff_cache .hypothesis build
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.made:
	@for python in $(PYTHON) none; do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && break; \
	done; \
	if [ $$python = none ]; then \
		echo "Python 3.10 or newer is needed; none of these is: $(PYTHON)." >&2; \
		echo "Install one, or name yours: make PYTHON=/path/to/python3.12 …" >&2; \
		exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$$python cannot make virtual environments: its modules venv and ensurepip are missing." >&2; \
		echo "On Debian and Ubuntu: sudo apt install python3-venv" >&2; \
		exit 1; \
	fi; \
	"$$python" -m venv $(VENV)
	@printf '[egg_info]\negg_base = $(VENV)\n' > $(VENV)/build.cfg
	@$(INSTALL) pip setuptools
	@touch $@

$(VENV)/.for-demo: $(VENV)/.made setup.cfg constraints.txt
	@echo "Installing what it needs to run into $(VENV) …"
	@$(INSTALL) --no-build-isolation --editable ".[all]"
	@touch $@

$(VENV)/.for-test: $(VENV)/.made setup.cfg constraints.txt
	@echo "Installing what it needs to be developed into $(VENV) …"
	@$(INSTALL) --no-build-isolation --editable ".[test]"
	@touch $(VENV)/.for-demo $@

# Each in an environment of its own, since they exclude one another's versions of redis-py. The
# bench leaves out what could not be installed, and says so.
$(VENV)/peers/%/.made: tests/bench/requirements/%.txt $(VENV)/.made
	@echo "Installing $*, to compare with, into $(@D) …"
	@$(BIN)/python -m venv $(@D)
	@-$(@D)/bin/python -m pip install -qq --disable-pip-version-check --requirement $< && touch $@

# Links that give the folders their dotted names, for mypy and import-linter: they cannot see through
# the finder of an editable installation.
.typing: Makefile
	@mkdir -p $@/harasocial_dispatch
	@for part in $(PARTS); do ln -sfn ../../$$part $@/harasocial_dispatch/$$part; done
	@ln -sfn ../tests $@/tests
	@ln -sfn ../tests/support $@/support
	@touch $@
