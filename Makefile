# `make demo` and `make test` set up their environment in .venv; PYTHON=... names the interpreter.
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
# A second environment: the original OpenMMLab packages on torch 2.1.
OPENMMLAB_VENV := .venv-openmmlab
OPENMMLAB_READY := $(OPENMMLAB_VENV)/.ready
SOURCES := smmix_mm configs tools tests docs demo
# Tests of one file stay together, since they share what is made once for all of them. The files of long tests come first.
# pytest-xdist's -n auto would count cores without their second threads.
ON_ALL_CORES := -n logical --dist loadfile --no-loadscope-reorder --durations 10

DOCS_READY := $(VENV)/.docs-ready

.PHONY: help demo test test-slow test-openmmlab lint format bench docs env clean
.DEFAULT_GOAL := help

help:  ## Lists the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(READY)  ## Pretrains a small PVT with CutMix and with SMMix, detects and segments with it, and compares
	$(RUN) tools/demo.py

test: $(READY)  ## All tests but the slow ones, on all cores
	$(RUN) -m pytest -m "not slow" $(ON_ALL_CORES)

test-slow: $(READY)  ## The slow tests
	$(RUN) -m pytest -m slow

test-openmmlab: $(OPENMMLAB_READY)  ## The tests of `make test` with the original OpenMMLab packages on torch 2.1
	$(OPENMMLAB_VENV)/bin/python -m pytest -m "not slow" $(ON_ALL_CORES)

lint: $(READY)  ## Checks format and style
	$(RUN) -m ruff format --check $(SOURCES)
	$(RUN) -m ruff check $(SOURCES)

format: $(READY)  ## Formats the code and mends what can be mended
	$(RUN) -m ruff format $(SOURCES)
	$(RUN) -m ruff check --fix $(SOURCES)

bench: $(READY)  ## Times and profiles training steps, mixing, the input pipeline, exact resume, and PVT on large pictures
	OMP_NUM_THREADS=1 $(RUN) tools/benchmarks/step_time.py
	OMP_NUM_THREADS=1 $(RUN) tools/benchmarks/step_rate.py
	OMP_NUM_THREADS=1 $(RUN) tools/benchmarks/method_cost.py
	OMP_NUM_THREADS=1 $(RUN) tools/benchmarks/mixing_copy.py
	OMP_NUM_THREADS=1 $(RUN) tools/benchmarks/input_pipelines.py
	OMP_NUM_THREADS=1 $(RUN) tools/benchmarks/data_loading.py
	OMP_NUM_THREADS=1 $(RUN) tools/benchmarks/resume_cost.py
	$(RUN) tools/benchmarks/dense_backbone.py
	OMP_NUM_THREADS=1 $(RUN) tools/benchmarks/profile_step.py

docs: $(DOCS_READY)  ## Builds the documentation as a site in work_dirs/docs
	$(RUN) -m sphinx -W --keep-going -q -c docs . work_dirs/docs
	@echo "the site is work_dirs/docs/docs/index.html"

env: $(READY)  ## Only sets up the environment

$(READY): requirements.txt pyproject.toml tools/setup_env.sh
	PYTHON="$(PYTHON)" bash tools/setup_env.sh $(VENV)
	@touch $@

$(DOCS_READY): $(READY) docs/requirements.txt
	$(RUN) -m pip install -q -r docs/requirements.txt
	@touch $@

$(OPENMMLAB_READY): tools/requirements-openmmlab.txt pyproject.toml tools/setup_env.sh
	PYTHON="$(PYTHON)" bash tools/setup_env.sh $(OPENMMLAB_VENV) openmmlab
	@touch $@

clean:  ## Removes the environments and everything that was generated
	rm -rf $(VENV) $(OPENMMLAB_VENV) work_dirs data/digit_scenes data/digit_scenes_dense .pytest_cache .ruff_cache *.egg-info
