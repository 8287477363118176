# Everything one does with this repository. `make help` lists the targets.
# The first target that needs it creates .venv; it is renewed when the pinned requirements or pyproject.toml change.

.DEFAULT_GOAL := help
.PHONY: help run test check gen bench clean lock setup
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-installed
DEVELOPMENT := $(VENV)/.development-installed

# The Python that .venv is made with: the first one found that is new enough and can make one. Or name it:
# make run PYTHON=/opt/python3.12/bin/python3
PYTHON_USABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON = $(shell for name in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	if $$name -c '$(PYTHON_USABLE)' >/dev/null 2>&1; then command -v $$name; break; fi; done)

# Options for what a target runs, as in `make run ARGS=--exit` or `make test ARGS='-k committer'`.
ARGS ?=

# buf keeps its cache with the other things that can be thrown away.
export BUF_CACHE_DIR := $(CURDIR)/build/buf

help: ## list the targets
	@echo 'make TARGET [ARGS=...]'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-7s %s\n", $$1, $$2 }' Makefile

run: $(RUNTIME) ## start everything, import the demo data, show the dashboard, serve until Ctrl-C (ARGS=--exit ends then)
	@$(BIN)/orderstream up --demo $(ARGS)

test: $(DEVELOPMENT) ## run the tests (ARGS='-k WORD' selects; results in build/tests.xml)
	@mkdir -p build
	@$(BIN)/python -m pytest -n auto --junitxml=build/tests.xml $(ARGS)

check: $(DEVELOPMENT) ## format, lint, types, import rules, contract lint and breaking changes, drift of generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	@tag=$$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null); \
	if [ -n "$$tag" ]; then echo "buf breaking against $$tag"; $(BIN)/buf breaking --against ".git#tag=$$tag"; \
	else echo 'buf breaking: no release tag to compare with yet'; fi
	$(BIN)/python -m tools.generate --check
	$(BIN)/python -m tools.reference --check

gen: $(DEVELOPMENT) ## generate gen/ from proto/, and the reference pages of docs/ from the code
	$(BIN)/python -m tools.generate
	$(BIN)/python -m tools.reference

bench: $(DEVELOPMENT) ## measure against a bare gRPC echo; results in build/bench.json (ARGS=--quick, ARGS=--growth)
	@$(BIN)/python -m bench $(ARGS)

lock: ## pin what pyproject.toml asks for (ARGS=--upgrade: the newest of everything); needs uv
	uv pip compile pyproject.toml --group build --group demo $(ARGS) --generate-hashes --universal --no-header --quiet \
		--output-file requirements.txt
	uv pip compile pyproject.toml --group build --group demo --group dev --constraint requirements.txt $(ARGS) \
		--generate-hashes --universal --no-header --quiet --output-file requirements-dev.txt

clean: ## remove what the tools made; data/ stays
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup: $(DEVELOPMENT)

# Installing is verified against the hashes. The project itself is installed editable, built by the pinned hatchling.
define install
	@if command -v uv >/dev/null 2>&1; then uv pip install --quiet --python $(BIN)/python $(1); else \
		{ $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null; } && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check $(1); fi
endef

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo 'Orderstream needs Python 3.11 or newer, with its venv module. Found on the PATH:' >&2; \
		found=none; for name in python3 python; do if command -v $$name >/dev/null 2>&1; then found=; \
			echo "  $$(command -v $$name), which is $$($$name --version 2>&1)" >&2; fi; done; \
		[ -z "$$found" ] || echo '  none' >&2; \
		echo 'Install one (Debian and Ubuntu: python3 and python3-venv), or name it: make PYTHON=/path/to/python3 …' >&2; \
		exit 1; fi
	@$(PYTHON) -c '$(PYTHON_USABLE)' || { \
		echo '$(PYTHON) is no Python 3.11 or newer with its venv module.' >&2; exit 1; }
	@echo 'Setting up $(VENV) with $(PYTHON): once, and again when the requirements change.' >&2
	@rm -rf $(VENV)
	@if command -v uv >/dev/null 2>&1; then uv venv --quiet --python $(PYTHON) $(VENV); else $(PYTHON) -m venv $(VENV); fi

$(RUNTIME): requirements.txt pyproject.toml | $(BIN)/python
	$(call install,--require-hashes -r requirements.txt)
	$(call install,--no-deps --no-build-isolation --editable .)
	@touch $@

$(DEVELOPMENT): requirements-dev.txt $(RUNTIME)
	$(call install,--require-hashes -r requirements-dev.txt)
	@touch $@
