# Needs Python 3.10 to 3.13 and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
# Hashes are checked by pip; the lock files carry no address, so any mirror of PyPI will do. They are complete: with
# --no-deps nothing is resolved again, which in older versions of pip let a newer release of a package break the install.
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help setup demo test check yaml lock docs containers wheel bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Install everything into .venv

demo: $(READY) ## Train, shrink, deploy and query the census model; ends with a report in demo-output/
	$(BIN)/servegraph run --output-dir demo-output

test: $(READY) ## Run all tests
	$(BIN)/python -m pytest

check: $(READY) ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

yaml: $(READY) ## Write the committed pipeline and component YAML again
	$(BIN)/python -m servegraph_pipelines.compiling

docs: $(READY) ## Build the site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

containers: $(READY) ## Build the images and run the pipeline on them, without a registry
	PYTHON=$(abspath $(BIN)/python) tests/containers/prove || [ $$? -eq 77 ]

wheel: $(READY) ## Build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

bench: $(READY) ## Run the benchmarks
	$(BIN)/python benchmarks/inspect_speed.py --models bench-models
	$(BIN)/python benchmarks/optimize.py --models bench-models
	$(BIN)/python benchmarks/serve.py

lock: ## Resolve the dependencies again (needs uv)
	for extra in train train-gpu cloud serve serve-gpu; do $(LOCK) --extra $$extra -o requirements/$$extra.txt || exit 1; done
	$(LOCK) --extra all --group dev -o requirements/dev.txt
	$(LOCK) --extra estimator -o components/servegraph/estimator/requirements.txt
	for group in build test; do $(LOCK_GROUP) $$group -o requirements/$$group.txt || exit 1; done

clean: ## Remove what the other targets made
	rm -rf $(VENV) .venv-serve-peers demo-output bench-models dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis

LOCK_OPTIONS := --quiet --universal --python-version 3.10 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links
LOCK := uv pip compile pyproject.toml $(LOCK_OPTIONS)
LOCK_GROUP := uv pip compile $(LOCK_OPTIONS) --group

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
		{ echo "$(PYTHON) is not Python 3.10 to 3.13; set PYTHON, e.g. make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
		{ echo "$(PYTHON) has no venv module; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -c 'import pip, ssl' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)  # one that works is kept
	@echo "Installing about 130 packages into $(VENV); TensorFlow is the largest ..."
	$(INSTALL) --no-deps --require-hashes -r requirements/dev.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@
