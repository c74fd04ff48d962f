# Everything is installed into .venv from the pinned requirements/*.txt, once; change one of them and it is again.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
BASE := $(VENV)/.base
TEST := $(VENV)/.test
DEV := $(VENV)/.dev
PROJECT := $(VENV)/.project
PEERS_VENV := $(VENV)/peers
PEERS := $(PEERS_VENV)/.made

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo dev test lint format types test-crash bench setup lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(BASE) $(PROJECT) ## Run the example pipelines end to end; no server is needed
	@exec $(BIN)/pivotal demo

dev: $(BASE) $(PROJECT) ## Start the Dagster UI, its daemon, the receiver and the sandbox; Ctrl-C ends them all
	@exec $(BIN)/pivotal dev

test: lint types $(PROJECT) ## Run every check: lint, types, tests
	@exec $(BIN)/python -m pytest -q -n 3 --dist loadfile

lint: $(TEST) ## Check style, format and who imports whom
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet || { echo "The files above want \`make format\`." >&2; exit 1; }
	@report=$$($(BIN)/lint-imports --no-logo) || { echo "$$report" >&2; exit 1; }

format: $(TEST) ## Format the code and mend what lint can mend
	@$(BIN)/ruff check --quiet --fix
	@$(BIN)/ruff format --quiet

types: $(TEST) ## Check types, strictly
	@$(BIN)/mypy --no-error-summary .

test-crash: $(TEST) $(PROJECT) ## Kill runs at random moments, hundreds of times (`make test` does so a few times)
	@PIVOTAL_CRASH_RUNS=50 exec $(BIN)/python -m pytest -q $(wildcard tests/test_crash.py tests/*/test_*crash.py)

bench: $(TEST) $(PROJECT) $(PEERS) ## Measure the engine beside the bare floor, dlt, Sling and pandas (half an hour)
	@exec $(BIN)/python -m benchmarks --peers $(PEERS_VENV)/bin/python --report benchmarks/RESULTS.md

setup: $(DEV) $(PROJECT) ## Prepare .venv for development

lock: $(DEV) ## Pin what pyproject.toml asks for in requirements/*.txt (UPGRADE=1: the newest)
	@$(call pin,build,--group pyproject.toml:build)
	@$(call pin,base,pyproject.toml)
	@$(call pin,test,pyproject.toml --group test -c requirements/base.txt)
	@$(call pin,peers,--group pyproject.toml:peers)
	@$(call pin,dev,pyproject.toml --group test --group dev -c requirements/test.txt)

clean: ## Remove .venv, caches and what the demo made (data/)
	@rm -rf $(VENV) data build dist .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- how .venv is made ---

$(VENV)/.made: requirements/build.txt
	@command -v $(PYTHON) >/dev/null \
	  || { echo "$(PYTHON) is not there. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else sys.executable + " is Python " \
	  + sys.version.split()[0] + "; 3.11 or newer is needed. Name one: make PYTHON=/path/to/python3")'
	@echo "Making $(VENV) (once; the packages take about a minute) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --no-deps -r requirements/build.txt
	@touch $@

# What runs is compiled to bytecode here, on every core: the first start is then as fast as any other.
# (Some packages carry templates that are not Python: those are passed over.)
$(BASE): $(VENV)/.made requirements/base.txt
	@$(call install,base)
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true
	@touch $@

$(TEST): $(BASE) requirements/test.txt
	@$(call install,test)
	@touch $@

$(DEV): $(TEST) requirements/dev.txt
	@$(call install,dev)
	@touch $@

$(PEERS): $(VENV)/.made requirements/peers.txt
	@$(PYTHON) -m venv $(PEERS_VENV)
	@echo "Installing requirements/peers.txt ..."
	@$(PEERS_VENV)/bin/python -m pip --quiet --disable-pip-version-check install --no-deps -r requirements/peers.txt
	@touch $@

$(PROJECT): $(VENV)/.made pyproject.toml
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# pip alone, so that its configuration (index, proxy, certificates) holds; a current one is 4 x faster than Python's own.
define install
echo "Installing requirements/$(1).txt ..."; $(PIP) install --no-deps --no-compile -r requirements/$(1).txt
endef

define pin
$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate $(if $(UPGRADE),--upgrade) \
--custom-compile-command "make lock" $(2) --output-file requirements/$(1).txt
endef
