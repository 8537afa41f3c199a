# The two commands: `make report` and `make test`. Each sets up .venv first, once.
SHELL := /bin/bash
CONFIG ?=
CORES ?= 2
TEST_WORKERS ?= 4
PROFILE ?= workflow/profiles/slurm
ARGS ?=
# Looked up before .venv is put on the path.
PYTHON := $(or $(PYTHON),$(shell command -v python3))

UV := 0.13.8

BIN := .venv/bin
READY := .venv/ready
ZOO := .venv-zoo
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONUTF8 := 1
# Caches are kept here where the home folder cannot be written; see convatlas/pipeline/environment.py.
ifneq ($(shell mkdir -p "$${XDG_CACHE_HOME:-$${HOME:?}/.cache}" 2>/dev/null && echo writable),writable)
export XDG_CACHE_HOME := $(CURDIR)/.snakemake/cache
endif
# CONFIG is a path, which the recipes take from the environment, so that neither make nor the shell reads it as code.
export CONFIG
CONFIGFILE = $(if $(value CONFIG),--configfile "$$CONFIG")
PREPARE = python workflow/prepare.py $(CONFIGFILE)
SNAKEMAKE = $(PREPARE) && snakemake --cores $(CORES) --workflow-profile workflow/profiles/local

.DEFAULT_GOAL := help
.PHONY: help setup report publish full download cluster test lint docs zoo lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY) ## create .venv from requirements.lock (all targets do this by themselves)

# The packages of your own networks, such as timm, one a line.
OWN := $(wildcard requirements.local.txt)

$(READY): requirements.lock pyproject.toml $(OWN)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	# Compile bytecode now, so that jobs need not, where Python cannot write it.
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes --requirements requirements.lock
	$(if $(OWN),$(BIN)/uv pip install --quiet --python $(BIN)/python --constraints requirements.lock --requirements $(OWN))
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps --editable .
	$(BIN)/python -c 'import convatlas.statistics.reduction' # numba compiles it, for this processor
	@touch $@

report: $(READY) ## run config.yaml, with CONFIG=mine.yaml merged over it, and build reports/gallery/
	@$(SNAKEMAKE) $(CONFIGFILE)
	@echo "Open reports/gallery/index.html"

publish: $(READY) ## build the report, then reports/gallery.zip and the single file reports/gallery.html
	@$(SNAKEMAKE) $(CONFIGFILE) -- publish

full: $(READY) ## run config.full.yaml: MNIST, Oxford-IIIT Pet and ImageNet weights, downloaded
	@$(SNAKEMAKE) --configfile config.full.yaml $(if $(value CONFIG),"$$CONFIG")
	@echo "Open reports/gallery/index.html"

download: $(READY) ## only fetch the data sets (of config.full.yaml, unless CONFIG names another)
	@$(SNAKEMAKE) --configfile "$${CONFIG:-config.full.yaml}" -- download

cluster: $(READY) ## build the report on SLURM, with PROFILE (workflow/profiles/slurm); see docs/cluster.md
	@$(PREPARE) && snakemake --workflow-profile $(PROFILE) $(CONFIGFILE) $(ARGS)
	@echo "Open reports/gallery/index.html"

test: $(READY) ## run the tests; the last line says which were skipped, and how to run them
	@OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive pytest -n $(TEST_WORKERS) --dist loadgroup --no-loadscope-reorder

lint: $(READY) ## check the code's style and types
	@ruff check .
	@ruff format --check .
	@snakefmt --check --line-length 110 Snakefile workflow
	@mypy

docs: $(READY) ## build the documentation, docs/_build/html/index.html
	@python -m sphinx --quiet --fail-on-warning --keep-going -b html docs docs/_build/html

zoo: $(READY) $(ZOO)/ready ## check networks of other packages and write docs/zoo.md; ARGS=--help lists options
	@$(ZOO)/bin/python -m tests.zoo.sweep $(ARGS)

$(ZOO)/ready: requirements-zoo.lock | $(READY)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(ZOO)
	$(BIN)/uv pip install --quiet --python $(ZOO)/bin/python --require-hashes --requirements requirements-zoo.lock
	@touch $@

lock: $(READY) ## update requirements.lock and requirements-zoo.lock within the ranges of pyproject.toml
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --extra test --extra cluster --extra docs pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --extra zoo --constraint requirements.lock pyproject.toml -o requirements-zoo.lock

clean: ## remove the output of runs, but not data/ and .venv
	rm -rf results reports/gallery reports/gallery.zip reports/gallery.html logs
