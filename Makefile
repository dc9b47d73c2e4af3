# The two commands: `make demo` and `make test`. Each does its own set-up and says what it does.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUN    ?= build/demo
JOBS   ?= 2
# Tests on a Slurm cluster mostly wait: two processes beside those that compute.
ALL    := $(shell expr $(JOBS) + 2)
# A file's tests share a process; files begin in the order of tests/conftest.py, the long ones first.
SHARE  := --dist loadgroup --no-loadscope-reorder
MOST   ?= 40
MINUTES ?= 60
SETS   ?= 1000,10000,100000

export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE  ?= 1
export DS_ACCELERATOR  ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo cuda || echo cpu)

# Tests start many processes, and each would compile the same modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup slurm-setup compiler-setup demo test test-long test-gpu test-mutants soak check check-types check-models check-others format bench bench-data bench-plan bench-shards bench-step bench-train bench-generate bench-checkpoint bench-loader bench-slurm bench-evaluate docs gpu-report gpu-wheels simulator-report sensitivity-report embedded clean

help:
	@echo "make demo       archive -> tiles -> captions -> training -> corpus -> report, on this machine"
	@echo "make test       the tests; test-long: their long versions too"
	@echo "make test-mutants  change the code in one place at a time: do the tests see it? (half an hour)"
	@echo "make gpu-report  on a GPU: does it compute right, and how fast (ten minutes); test-gpu: tests for owners of one"
	@echo "make soak       an hour of whole pipelines on a real Slurm under random faults (root: a full disk too)"
	@echo "make slurm-setup  install Slurm (root, apt-get) for the tests on a real cluster"
	@echo "make check      format, lint, types, layers, fast tests (before each commit)"
	@echo "make docs       the documentation as a site in build/site, readable without a network"
	@echo "make bench      side-by-side measurements, one run each"
	@echo "make embedded   train the embedded base models again"

setup: $(VENV)/.ready
	@echo "to have sarhpc on the PATH of this shell: . $(VENV)/bin/activate"

# torch first and pinned: any other order may fetch a CUDA build of several GB.
$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "set-up: virtual environment in $(VENV), packages as pinned in constraints.txt"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade "setuptools<81" wheel
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev,docs]"
	touch $@

# The tests start a Slurm cluster of their own; where it cannot be installed they say so.
slurm-setup:
	@tools/slurm_setup.sh

# The tests on a pretended GPU compile a few lines of C++; without a compiler they say so.
compiler-setup:
	@tools/compiler_setup.sh

demo: setup
	@echo "demo: the whole pipeline on this machine, about ten minutes on two cores; the run is $(RUN)"
	$(BIN)/sarhpc demo $(RUN)

test: setup slurm-setup compiler-setup
	@echo "test: every test but the long ones, on $(ALL) processes"
	$(BIN)/python -m pytest -n $(ALL) $(SHARE) -m "not long and not gpu" -raR --durations=15

test-long: setup slurm-setup compiler-setup
	$(BIN)/python -m pytest -n $(ALL) $(SHARE) -m "not gpu" --timeout=3600 --durations=30

# Nobody types a command after the submission: every pipeline has to come back and end byte-identical.
soak: setup slurm-setup
	$(BIN)/python tools/soak.py --minutes $(MINUTES)

# One module: make test-mutants MODULES=hpc/publish.py; every mutant, not 40 a module: MOST=0.
# Cosmic Ray has a virtual environment of its own; the tests run by the project's.
test-mutants: setup build/mutants/venv/.ready
	build/mutants/venv/bin/python tools/mutants.py --python $(abspath $(BIN))/python --most $(MOST) $(MODULES)

build/mutants/venv/.ready:
	test -x build/mutants/venv/bin/python || $(PYTHON) -m venv build/mutants/venv
	build/mutants/venv/bin/pip install --quiet --disable-pip-version-check cosmic-ray==8.7.0
	touch $@

# Three processes side by side: types, and two halves of the fast tests. The packages whose tests
# import torch share one half, so that the libraries of models are imported once; `tiling` evens them.
check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	+$(MAKE) --no-print-directory --keep-going --jobs=3 --output-sync check-types check-models check-others

check-types:
	$(BIN)/mypy

FAST   := $(BIN)/python -m pytest -q -p no:xdist -m "not slow and not long and not gpu and not slurm"
MODELS := $(addprefix tests/unit/,captioning cli diffusion evaluation generation launch stages tiling tools training)

check-models:
	$(FAST) $(MODELS)

check-others:
	$(FAST) $(filter-out $(MODELS),$(patsubst %/,%,$(wildcard tests/unit/[a-z]*/))) tests/golden

# A link or an anchor that leads nowhere is an error.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "docs: $(abspath build/site)/index.html"

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# On a machine with a GPU; below ten minutes. REPORT=FILE for another file.
gpu-report: setup
	$(BIN)/python tools/gpu_report.py --out $(or $(REPORT),build/gpu_report.jsonl)

# What a bare image with torch, transformers, accelerate and peft lacks; for a Python of another version PYTHON_TAG=3.11.
gpu-wheels: setup
	$(BIN)/pip download --quiet --no-deps --only-binary=:all: --python-version $(or $(PYTHON_TAG),3.12) --dest build/gpu_wheels \
	  $$(grep -E '^(diffusers|pydantic|pydantic_core|omegaconf|hjson|importlib_metadata|typing-inspection|annotated-types)==' constraints.txt)
	DS_BUILD_OPS=0 $(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/gpu_wheels $$(grep '^deepspeed==' constraints.txt)
	@echo "gpu-wheels: there, pip install --no-index --no-deps build/gpu_wheels/*.whl, then python tools/gpu_report.py --out FILE"

# For owners of a GPU.
test-gpu: setup
	$(BIN)/python -m pytest -m gpu -raR tests/gpu

# Each prints its figures and the ratio to its peers, measured in one run.
bench: bench-data bench-shards bench-step bench-train

bench-data: setup
	$(BIN)/python tools/bench_tiling.py

# Ten million tiles: half a minute and 1.5 GB of memory.
bench-plan: setup
	$(BIN)/python tools/bench_plan.py
	$(BIN)/python tools/bench_prompts.py

bench-shards: setup
	$(BIN)/python tools/bench_shards.py

bench-step: setup
	$(BIN)/python tools/bench_step.py

bench-train: setup
	$(BIN)/python tools/bench_train.py

# GENERATE="--shape sd15 --px 256 --steps 2 --images 2 --batch 2 --rounds 2" for the shape of SD 1.5.
bench-generate: setup
	$(BIN)/python tools/bench_generate.py $(GENERATE)

bench-checkpoint: setup
	$(BIN)/python tools/bench_checkpoint.py

# litdata and streaming without all their dependencies: they would bring a CUDA build of torch.
bench-loader: setup
	test -x build/peers/bin/python || $(PYTHON) -m venv build/peers
	build/peers/bin/pip install --quiet "$$(grep '^torch==' constraints.txt)" "$$(grep '^numpy==' constraints.txt)" \
	  pillow boto3 filelock lightning-utilities obstore requests tifffile \
	  brotli catalogue python-snappy tqdm "transformers<5" xxhash zstd
	build/peers/bin/pip install --quiet --no-deps litdata mosaicml-streaming torchvision
	$(BIN)/python tools/bench_loader.py --peers build/peers/bin/python
	$(BIN)/python tools/bench_feed.py

# About ten minutes: 5,000 jobs that each do next to nothing, on a cluster of this machine.
bench-slurm: setup slurm-setup
	$(BIN)/python tools/bench_slurm.py

# About ten minutes, most of them for sets of 100,000 tiles; SETS=1000,10000 for less.
bench-evaluate: setup
	$(BIN)/python tools/bench_evaluate.py --sets $(SETS)

# TILES=FOLDER of shards or images.
sensitivity-report: setup
	$(BIN)/python tools/sensitivity_report.py $(TILES)

# Needs ../shared/data, or DATA=FOLDER.
simulator-report: setup
	$(BIN)/python tools/compare_simulator.py --data $(or $(DATA),../shared/data)

clean:
	@echo "removing caches only; runs and data are yours to delete"
	rm -rf .mypy_cache .ruff_cache .pytest_cache

embedded: setup
	@echo "embedded: training the embedded models again, about three hours on two cores"
	$(BIN)/python tools/train_embedded.py
