# Both `make demo` and `make test` set up what they need in .venv; PYTHON=... names the interpreter to use.
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
SOURCES := smmix_mm configs tools tests

.PHONY: help demo test test-slow lint format bench env clean
.DEFAULT_GOAL := help

help:  ## Lists the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(READY)  ## Pretrains a small PVT with CutMix and with SMMix, detects and segments with it, and compares
	$(RUN) tools/demo.py

test: $(READY)  ## All tests but the slow ones
	$(RUN) -m pytest -m "not slow"

test-slow: $(READY)  ## The slow tests
	$(RUN) -m pytest -m slow

lint: $(READY)  ## Checks format and style
	$(RUN) -m ruff format --check $(SOURCES)
	$(RUN) -m ruff check $(SOURCES)

format: $(READY)  ## Formats the code and mends what can be mended
	$(RUN) -m ruff format $(SOURCES)
	$(RUN) -m ruff check --fix $(SOURCES)

bench: $(READY)  ## Times training steps of all methods, and PVT on large pictures against mmdet's
	$(RUN) tools/benchmarks/step_time.py
	$(RUN) tools/benchmarks/method_cost.py
	$(RUN) tools/benchmarks/dense_backbone.py

env: $(READY)  ## Only sets up the environment

$(READY): requirements.txt pyproject.toml tools/setup_env.sh
	PYTHON="$(PYTHON)" bash tools/setup_env.sh $(VENV)
	@touch $@

clean:  ## Removes the environment and everything that was generated
	rm -rf $(VENV) work_dirs data/digit_scenes data/digit_scenes_dense .pytest_cache .ruff_cache *.egg-info
