# Each target sets up what it needs. `make help` lists them.

PYTHON ?= python3
PYTEST_ARGS ?=
DEMO_ARGS ?=
# Tests of a file share what they set up; files share nothing, and come in the
# order of tests/conftest.py.
WORKERS ?= -n 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help quickstart demo notebooks test test-oldest soak a11y docs format \
	clean

help: ## List the targets
	@grep -E '^[a-z0-9-]+:.*##' Makefile | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' \
		| expand -t 16

quickstart: .venv/ready ## Train, evaluate and search on built-in scenes
	@.venv/bin/python -m experiments.quickstart

# The test videos of the quick start, which the model has not seen.
demo: .venv/ready ## Open the page over built-in scenes
	@test -e runs/quickstart/calibration.json || { \
		echo "First the quick start, once: some 5 minutes."; \
		.venv/bin/python -m experiments.quickstart; }
	@.venv/bin/python -m demo --workdir=runs/quickstart \
		--videos=runs/quickstart/data/test \
		--annotations=runs/quickstart/data/test.jsonl $(DEMO_ARGS)

# In their places, with what they print and draw: some five minutes.
notebooks: .venv/ready ## Run the notebooks, and keep their outputs
	@.venv/bin/jupyter execute --inplace notebooks/*.ipynb

test: .venv/ready ## Run the test suite, for every change
	@.venv/bin/python -m pytest $(WORKERS) $(PYTEST_ARGS)

test-oldest: .venv-oldest/ready ## Run its shorter part on the oldest TensorFlow
	@.venv-oldest/bin/python -m pytest -m "not slow and not soak" $(WORKERS) \
		$(PYTEST_ARGS)

soak: .venv/ready ## Run the tests that are long by nature
	@.venv/bin/python -m pytest -m soak $(WORKERS) $(PYTEST_ARGS)

# axe-core comes from npm, into a folder that git ignores.
a11y: .venv/ready ## Look for what hinders people on the page
	@npm install --silent --no-save --prefix build/axe axe-core@4
	@.venv/bin/python -m tests.accessibility \
		build/axe/node_modules/axe-core/axe.min.js

docs: .venv/ready ## Build the documents and a reference of the API
	@.venv/bin/python -m mkdocs build --strict
	@echo "Open build/site/index.html in a browser."

format: .venv/ready ## Lay out the sources and mend what ruff can mend
	@.venv/bin/python -m ruff check --fix
	@.venv/bin/python -m ruff format

clean: ## Remove the environments and everything built
	@rm -rf .venv .venv-oldest build dist *.egg-info
	@rm -rf .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# `tfio` is what brings the old TensorFlow: see setup.py. The tests of `beam` and
# `dask` are slow ones, which `test-oldest` leaves out; `clip` needs the newest
# TensorFlow.
.venv/ready: EXTRAS := test,beam,dask,clip,docs
.venv-oldest/ready: EXTRAS := test,tfio

.venv/ready .venv-oldest/ready: setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14)' \
		2>/dev/null || { echo "acnn_tf needs Python 3.11 to 3.13, and" \
		"$(PYTHON) is no such one. Name it: make PYTHON=python3.12" \
		"$(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Setting up $(@D) with acnn_tf[$(EXTRAS)]: some minutes, only once."
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check \
		--editable ".[$(EXTRAS)]"
	@touch $@
