# One file of commands: `make help` lists them. Each installs what it needs into .venv first; nothing else is touched.

PYTHON ?= python3.11
VENV   ?= .venv
# Another source of torch builds, e.g. `make TORCH_INDEX=https://download.pytorch.org/whl/cpu demo`.
TORCH_INDEX ?=
# Arguments for pytest and the jobs, e.g. `make test ARGS="-k storage"`; `ARGS="-n 0 --pdb"` keeps to one process.
ARGS   ?=
# The model that `make serve` serves: a folder or an s3:// URI.
MODEL  ?= runs/demo/model

BIN   := $(VENV)/bin
PIP   := $(BIN)/python -m pip
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test test-fast chaos serve lint format docs docs-serve reference benchmarks clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## create .venv and install everything, as constraints.txt says (done by the others when needed)

demo: $(STAMP) ## real video to latents to six trained models to videos and a report, in runs/demo (9 to 24 minutes on 2 cores)
	$(BIN)/python jobs/demo.py $(ARGS)

test: $(STAMP) ## the whole test suite, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder $(ARGS)

test-fast: $(STAMP) ## the tests without Ray, S3, models and child processes
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder -m "not (ray or s3 or model or process or slow)" $(ARGS)

chaos: $(STAMP) ## kill processes and nodes, damage files, disturb S3; the result goes to benchmarks/results/
	$(BIN)/python -m pytest -n 0 tests/chaos $(ARGS)

serve: $(STAMP) ## serve runs/demo/model, or MODEL=..., on the loopback interface
	$(BIN)/python -m serve --model $(MODEL) $(ARGS)

lint: $(STAMP) ## style, types, direction of imports, and whether docs/reference/ is current
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.reference --check

format: $(STAMP) ## put the code into the house format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(STAMP) ## build the documentation into site/: open site/index.html
	$(BIN)/python -m tools.reference
	NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --quiet

docs-serve: docs ## show the documentation on http://127.0.0.1:8001
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory site 8001

reference: $(STAMP) ## write docs/reference/ anew from the code and from benchmarks/results/
	$(BIN)/python -m tools.reference

benchmarks: $(STAMP) ## measure, and save to benchmarks/results/ (about an hour on 2 cores)
	$(BIN)/python benchmarks/train_step.py --save
	$(BIN)/python benchmarks/encode.py --save
	$(BIN)/python benchmarks/listing.py --files 100 10000 100000 --save
	$(BIN)/python benchmarks/ledger.py --items 10000 100000 --save
	$(BIN)/python benchmarks/scale.py --save
	$(BIN)/python -m tools.reference

clean: ## remove .venv, site/ and caches; runs/ stays
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first, because building DeepSpeed needs it, and because it is the one package of which there are two
# builds. pip prefers `2.13.0+cpu` wherever a configured source has it; `===2.13.0` takes the CUDA build instead.
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
	  || { echo "error: $(PYTHON) is not Python 3.11; install it, or name it with make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -qq -c constraints.txt pip setuptools wheel hatchling editables ninja
	@if [ -n "$(TORCH_INDEX)" ]; then \
	  set -x; $(PIP) install -qq --extra-index-url "$(TORCH_INDEX)" -c constraints.txt torch; \
	elif nvidia-smi -L >/dev/null 2>&1; then \
	  set -x; $(PIP) install -qq -c constraints.txt "torch===$(TORCH)"; \
	elif $(PIP) install -qq -c constraints.txt "torch===$(TORCH)+cpu" 2>/dev/null; then \
	  echo "torch $(TORCH)+cpu: no NVIDIA GPU was found"; \
	else \
	  echo "No CPU build of torch $(TORCH) in the configured package indexes: installing the default build, which on" \
	       "Linux brings gigabytes of CUDA libraries. TORCH_INDEX=https://download.pytorch.org/whl/cpu gives the small one."; \
	  set -x; $(PIP) install -qq -c constraints.txt torch; \
	fi
	DS_BUILD_OPS=0 $(PIP) install -qq -c constraints.txt --no-build-isolation -e '.[demo,docs,lint,test]'
	@touch $@
