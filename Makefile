PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help environment quickstart figures tables claims report test lint bench-training bench-evaluation cluster-up cluster-up-accounting cluster-down

help:
	@echo "make quickstart    environment, mini run on this machine, figures"
	@echo "make environment   $(VENV) for machines without a GPU"
	@echo "make figures       the paper's figures and those of your runs, from results/ (FIG=3: that one; FIG=3,6)"
	@echo "make tables        the paper's tables as Markdown, CSV and LaTeX, from results/ (TABLE=2: that one)"
	@echo "make claims        the paper's claims, judged on results/"
	@echo "make report        one HTML page of all that, with the figures as PDF: report/index.html"
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

$(VENV)/tests: requirements/tests.txt $(VENV)/complete
	$(BIN)/python -m pip install --no-deps -r requirements/tests.txt
	@touch $@

quickstart: environment
	$(BIN)/python -m reprokit.launch recipe=mini cluster=local

figures: environment
	$(BIN)/python -m analysis.figures $(addprefix figure=,$(FIG))

tables: environment
	$(BIN)/python -m analysis.tables $(addprefix table=,$(TABLE))

claims: environment
	$(BIN)/python -m analysis.claims

report: environment
	$(BIN)/python -m analysis.report

lint: environment
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint $(VENV)/tests
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not alone"
	$(BIN)/python -m pytest -q -m alone

bench-training: $(VENV)/tests
	$(BIN)/python -m tests.performance.bench_training

bench-evaluation: environment
	$(BIN)/python -m tests.performance.bench_evaluation

cluster-up:
	$(PYTHON) slurm/devcluster/devcluster.py up

cluster-up-accounting:
	$(PYTHON) slurm/devcluster/devcluster.py up --accounting

cluster-down:
	$(PYTHON) slurm/devcluster/devcluster.py down
