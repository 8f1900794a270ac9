# Installs into .venv and runs; needs Python >= 3.11 and a package registry.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKDIR ?= runs
SMOKE_ARGS ?=
PYTEST_ARGS ?=
GPU_BUNDLE_ARGS ?=
GPU_MINUTES ?= 9
# A small model waits for the host otherwise.
GPU_ARGS ?= --set=train.steps_per_dispatch=50
OUT ?= gpu-out
GPU_RESULTS ?= gpu-results
UV ?= uv
INSTALL := -m pip install --disable-pip-version-check --quiet -c constraints.txt

# Slow ones that are many and small, each for itself; of the others a file stays in one process.
MANY := tests/test_catalogue.py
# A slow test often waits for processes that it started: one worker more than cores, up to eight.
SLOW_WORKERS = $(shell $(PYTHON) -c 'import os; print(min(8, 1 + os.cpu_count()))')

.PHONY: smoke test test-slow test-engines wmt-venv compile-venv lint constraints gpu-bundle gpu gpu-take

# Every row of Table 3 on the built-in corpus, through to the printed table.
smoke: $(VENV)/.installed
	$(BIN)/python -m launch.local table3@smoke --workdir=$(WORKDIR) $(SMOKE_ARGS)

# One process a core, each with one thread: the tests are many small compilations and little arithmetic. A file
# stays in one process, so that what its tests share is made once.
test: $(VENV)/.installed-test
	PJRT_NPROC=1 $(BIN)/python -m pytest -n auto --maxprocesses=8 --dist=loadfile $(PYTEST_ARGS)

# What was not installed (make compile-venv) is skipped, with a reason. In the order of their names: the files with
# the fewest and longest tests, faults, would come last otherwise, and one core wait for the other.
test-slow: $(VENV)/.installed-test $(VENV)-wmt/.installed
	TX_TF_PYTHON=$(abspath $(VENV))-wmt/bin/python TX_COMPILE_PYTHON=$(abspath $(wildcard $(VENV)-compile/bin/python)) PJRT_NPROC=1 $(BIN)/python -m pytest -m slow -n $(SLOW_WORKERS) --dist=loadfile --no-loadscope-reorder --ignore=$(MANY) $(PYTEST_ARGS)
	PJRT_NPROC=1 $(BIN)/python -m pytest -m slow -n auto --maxprocesses=8 $(PYTEST_ARGS) $(MANY)

# On Slurm (Debian's slurm-wlm and munge, as root) and Ray, which the tests start here; what is missing is skipped.
test-engines: $(VENV)/.installed-engines
	PJRT_NPROC=1 $(BIN)/python -m pytest -m engines -rs tests/engines $(PYTEST_ARGS)

# A second environment with TensorFlow, which prepares TFDS's own WMT sets; training never needs it.
wmt-venv: $(VENV)-wmt/.installed

# A third one with the compilers for NVIDIA's GPUs and for TPUs, and no library of CUDA: in a common one every process
# would say that CUDA is missing.
compile-venv: $(VENV)-compile/.installed

lint: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# Minutes on a borrowed GPU (launch/README.md). Here: what the machine lacks, and what came back from it.
gpu-bundle: $(VENV)/.installed
	$(BIN)/python -m launch.gpu.bundle $(GPU_BUNDLE_ARGS)

gpu-take: $(VENV)/.installed
	$(BIN)/python -m launch.gpu.take $(GPU_RESULTS)

# There, with that machine's own JAX and without network.
gpu:
	$(PYTHON) -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target build/gpu/site gpu-bundle/wheels/*.whl
	PYTHONPATH=$(abspath build/gpu/site) $(PYTHON) -m launch.gpu --minutes=$(GPU_MINUTES) --out=$(OUT) $(GPU_ARGS)

# Pins one version of everything for every Python and platform; accelerators' wheels are for the machine to choose.
constraints:
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --fork-strategy fewest --no-annotate \
		--no-header --no-emit-index-url --no-emit-find-links --extra test --extra wmt --extra slurm --extra ray \
		--output-file constraints.txt pyproject.toml
	! grep -nE '://|index-url|find-links' constraints.txt

# A stamp newer than what it was made from means that nothing needs to be installed.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python $(INSTALL) -e .
	touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python $(INSTALL) -e '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-engines: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python $(INSTALL) -e '.[test,slurm,ray]'
	touch $@ $(VENV)/.installed $(VENV)/.installed-test

$(VENV)-wmt/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-wmt
	$(VENV)-wmt/bin/python $(INSTALL) -e '.[wmt]'
	touch $@

$(VENV)-compile/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-compile
	$(VENV)-compile/bin/python $(INSTALL) -e '.[tpu]' jax-cuda13-plugin==$$(sed -n 's/^jaxlib==//p' constraints.txt)
	touch $@

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11, 3.12 or 3.13 is needed, e.g. make PYTHON=python3.12" if not (3, 11) <= sys.version_info < (3, 14) else 0)'
	$(PYTHON) -m venv $(VENV)
