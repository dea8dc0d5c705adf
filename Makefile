# Two commands need nothing first: `make demo` and `make test`. Each sets up .venv where needed.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help demo test bench serve lint docs clean setup tools

help:
	@echo "make demo   set up, train a small model, run the (S, eta) FID grid, print table and report"
	@echo "make test   set up, run all tests"
	@echo "make serve  Prefect server, MLflow, a worker and the deployments on this machine"
	@echo "make bench  the benchmarks; writes benchmarks/results.json"
	@echo "make lint   ruff and mypy"
	@echo "make docs   the site of the docs, in site/; a link that leads nowhere is an error"
	@echo "make clean  remove .venv and caches (not data/)"

EMOJI := --checkpoint data/base-32 --prompts data/base-32/prompts.txt --dataset data/base-32/real.npz \
         --features pixels --guidance 2 --spacing trailing --steps 2,5,20 --etas 0,1 --n-images 76

demo: setup
	DDIM_CONFIG= $(BIN)/ddim grid
	@echo "And pictures that a person can judge, of a model that comes trained (no number is meant):"
	DDIM_CONFIG= $(BIN)/ddim grid $(EMOJI)

test: tools
	$(BIN)/python -m pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder

bench: tools
	$(BIN)/python -m benchmarks.run

serve: setup
	$(BIN)/python -m flows.servers.serve

lint: tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	@if [ "$$(cat .venv/docs 2>/dev/null)" != "$(FINGERPRINT)" ]; then \
	  rm -f .venv/docs \
	  && $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]' \
	  && echo "$(FINGERPRINT)" > .venv/docs; fi
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --site-dir site

# A .venv counts as made only when its last step left the fingerprint of what was asked for and
# the packages are really there; a half-made one is made anew, an outdated one is brought up.
FINGERPRINT := $(shell cat pyproject.toml constraints.txt | cksum | tr ' ' '-')

setup:
	@if [ ! -f .venv/ready ] || ! $(BIN)/python -c "$$SOUND" 2>/dev/null; then \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say which: make PYTHON=python3.11 ...")' \
	  && echo "making .venv (some GB; once)" && $(PYTHON) -m venv --clear .venv; fi
	@if [ "$$(cat .venv/ready 2>/dev/null)" != "$(FINGERPRINT)" ]; then \
	  rm -f .venv/ready \
	  && $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . \
	  && echo "$(FINGERPRINT)" > .venv/ready; fi

# What only tests, benchmarks and lint need (Dask and Ray among it) comes on top.
tools: setup
	@if [ "$$(cat .venv/tools 2>/dev/null)" != "$(FINGERPRINT)" ]; then \
	  rm -f .venv/tools \
	  && $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,dask,ray,s3,timm]' \
	  && echo "$(FINGERPRINT)" > .venv/tools; fi

define SOUND
import importlib.metadata as metadata, sys
names = [line.split("==")[0] for line in open("constraints.txt") if "==" in line]
needed = {"prefect", "torch", "torchvision", "mlflow", "diffusers", "datasets"} & set(names)
[metadata.version(name) for name in needed | {"ddim-flows"}]
[__import__("importlib.util").util.find_spec(name) or sys.exit(1) for name in needed]
endef
export SOUND

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info build dist site
