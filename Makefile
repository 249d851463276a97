PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help environment quickstart figures test lint bench-training bench-evaluation cluster-up cluster-up-accounting cluster-down

help:
	@echo "make quickstart    environment, mini run on this machine, figures"
	@echo "make environment   $(VENV) for machines without a GPU"
	@echo "make figures       draw everything in results/"
	@echo "make test          lint and the test suite"
	@echo "make bench-training   training speed against TRL's SFTTrainer, on two cores that do nothing else"
	@echo "make bench-evaluation generation against bare vLLM, start-up of engines, sharing of work"
	@echo "make cluster-up    a real Slurm on this machine (cluster-up-accounting: with sacct); make cluster-down stops it"

environment: $(VENV)/complete

$(VENV)/complete: requirements/cpu.txt pyproject.toml setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "error: $(PYTHON) is not Python 3.11; name one with make PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' || \
		{ echo "error: vLLM needs libnuma.so.1: apt-get install libnuma1"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "error: $(PYTHON) cannot make a virtual environment: apt-get install python3-venv"; exit 2; }
	$(BIN)/python -m pip install --no-deps -r requirements/cpu.txt
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/performance: requirements/performance.txt $(VENV)/complete
	$(BIN)/python -m pip install --no-deps -r requirements/performance.txt
	@touch $@

quickstart: environment
	$(BIN)/python -m reprokit.launch recipe=mini cluster=local

figures: environment
	$(BIN)/python -m analysis.figures

lint: environment
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint $(VENV)/performance
	$(BIN)/python -m pytest

bench-training: $(VENV)/performance
	$(BIN)/python -m tests.performance.bench_training

bench-evaluation: environment
	$(BIN)/python -m tests.performance.bench_evaluation

cluster-up:
	$(PYTHON) slurm/devcluster/devcluster.py up

cluster-up-accounting:
	$(PYTHON) slurm/devcluster/devcluster.py up --accounting

cluster-down:
	$(PYTHON) slurm/devcluster/devcluster.py down
