# Everything a developer does, from a fresh clone with python3 (>= 3.11) and make.
# `make` lists the targets.  Each sets up what it needs in .venv; a second run finds it done.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Each process of a test would compile the engine anew, and each worker rewrite all tests.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
# Arguments for the program behind a target: make run ARGS="--port 9000 --ephemeral"
ARGS ?=
# Suites of what has a compiled and a plain form.
COMPILED_TESTS := tests/unit/execution tests/unit/domains tests/unit/shard tests/unit/projection/postgres/test_rows.py
# Packages of pyproject.toml's tool.coverage.run, all of them. The rest of the room, some twenty lines, is for chance: examples are
# drawn, and Python 3.11 loses trace events of exceptions in nested coroutines. Whatever the report lists is to be covered.
CORE_COVERED_MIN := 99.90
# Tests that draw fewer examples in each run than here (tests/unit/thorough.py).
THOROUGH := tests/unit/sim tests/unit/domains/ledger/test_rules_hold.py tests/unit/gateway/test_fuzz.py tests/unit/gateway/test_front_fuzz.py tests/unit/query/test_fuzz.py
# One more than there are cores: there is always a test that waits, for a database or a disk.
WORKERS ?= 3
PYTEST_ALL := --quiet --numprocesses $(WORKERS) --dist worksteal --cov-branch --cov-report=

.PHONY: help
help: ## List these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## Set up and start an engine on this machine (ARGS="--port 8080 --data ./ultra-data")
	@hack/venv.sh runtime
	@exec $(BIN)/ultra dev $(ARGS)

.PHONY: test
test: ## Lint, types, layers, unit tests with their coverage gate, 1,000 seeds of a cluster
	@hack/venv.sh dev
	@$(MAKE) --jobs=2 lint unit
	@$(MAKE) sim SEEDS=1000 SEED_START=0

.PHONY: unit
unit: ## Unit tests with branch coverage of the core modules
	@hack/venv.sh dev
	@rm -f .coverage .coverage.*
	@$(BIN)/pytest tests/unit --cov $(PYTEST_ALL) $(ARGS)
	@echo "the same without compiled parts, where there are any:"
	@ULTRA_PURE=1 $(BIN)/pytest $(COMPILED_TESTS) --cov --cov-append $(PYTEST_ALL) $(ARGS)
	@$(BIN)/coverage report --precision=2 --fail-under=$(CORE_COVERED_MIN)

.PHONY: e2e
e2e: ## All stories: real processes, a real API server, and a real cluster, which is brought up
	@$(MAKE) e2e-processes
	@$(MAKE) e2e-cluster
	@$(MAKE) e2e-api

.PHONY: e2e-full
e2e-full: ## The same with the stories that take many minutes
	@ULTRA_TORTURE=1 $(MAKE) e2e ARGS="--timeout 7200"

.PHONY: e2e-processes
e2e-processes: ## Stories with real processes on this machine (kills, full disks, the import)
	@hack/venv.sh dev
	@$(BIN)/pytest tests/e2e --ignore=tests/e2e/api --ignore=tests/e2e/cluster --quiet --numprocesses 2 --dist loadfile $(ARGS)

# After the lab, which builds the API server; without it these are skipped, and say so.
.PHONY: e2e-api
e2e-api: ## CRDs, RBAC, manifests and the operator against a real API server (built by hack/lab)
	@hack/venv.sh dev
	@hack/lab/lab gitops || echo "e2e-api: the libraries of Flux and Argo CD cannot be built here: their stories are skipped"
	@$(BIN)/pytest tests/e2e/api --quiet $(ARGS)

.PHONY: lab
lab: ## A three-node Kubernetes cluster on this machine, with our images (docs/lab.md)
	@hack/lab/lab up
	@hack/lab/lab images
	@hack/lab/lab operator

.PHONY: e2e-cluster
e2e-cluster: lab ## Stories on the lab's cluster
	@hack/venv.sh dev
	@$(BIN)/pytest tests/e2e/cluster --quiet --timeout 1200 $(ARGS)

# How often the leader's pod is deleted, and which faults are done (all of them), of `make failovers`.
N ?= 100
FAULTS ?=
.PHONY: failovers
failovers: lab ## Faults on the lab's cluster under load, judged (N=100 FAULTS=node-killed,api-away ARGS="--minutes 20")
	@hack/venv.sh dev
	@PYTHONPATH=. $(BIN)/python -m tests.e2e.cluster.failovers.campaign --count $(N) $(if $(FAULTS),--faults $(FAULTS)) $(ARGS)

.PHONY: bench
bench: ## Compare with PostgreSQL and Redis on this machine (ARGS="--quick"); writes bench-results/
	@hack/venv.sh bench
	@hack/packages.sh bench
	@$(BIN)/python benchmarks/run.py $(ARGS)

.PHONY: bench-operator
bench-operator: ## What the operator needs for many engines, on a bare API server (ARGS="--engines 1000 --shards 10000")
	@hack/venv.sh dev
	@PYTHONPATH=. $(BIN)/python -m tests.e2e.api.bench $(ARGS)

.PHONY: torture
torture: ## 1,000 kills, every crash state and every flipped byte (an hour or more)
	@hack/venv.sh dev
	@ULTRA_TORTURE=1 $(BIN)/pytest $(THOROUGH) --quiet --timeout 7200 $(ARGS)
	@ULTRA_TORTURE=1 KILL_CYCLES=1000 $(BIN)/pytest tests/e2e/kills tests/e2e/faults tests/e2e/pods --quiet --timeout 7200 $(ARGS)

.PHONY: explore
explore: ## Walk the states of the replication protocol (ARGS="--walk 'three epochs'" or "--mutants")
	@hack/venv.sh dev
	@PYTHONPATH=. $(BIN)/python -m tests.unit.replication.campaign $(ARGS)

# Seeds of `make sim`: SEEDS of them, from SEED_START on.
SEEDS ?= 1000
SEED_START ?= 0
.PHONY: sim
sim: ## Simulate a replicated shard under faults (SEEDS=2000 SEED_START=0, or ARGS=--mutants)
	@hack/venv.sh dev
	@PYTHONPATH=. $(BIN)/python -m tests.unit.sim.cluster.campaign --seeds $(SEEDS) --start $(SEED_START) $(ARGS)

.PHONY: explore-moves
explore-moves: ## Walk the states of moving a slot (ARGS="--walk 'one move'" or "--mutants")
	@hack/venv.sh dev
	@PYTHONPATH=. $(BIN)/python -m tests.unit.moving.campaign $(ARGS)

.PHONY: mutants
mutants: ## Break 300 places of log and execution and list what no test notices (hours)
	@hack/venv.sh dev
	@$(BIN)/python hack/mutants.py $(ARGS)

.PHONY: lint
lint: ## Style, format, types and the layers of the architecture
	@hack/venv.sh dev
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet || { echo "format: run 'make format'"; exit 1; }
	@$(BIN)/mypy
	@report=$$($(BIN)/lint-imports --no-logo) || { echo "$$report"; exit 1; }

.PHONY: docs
docs: ## Write the generated pages anew and check every link
	@hack/venv.sh dev
	@$(BIN)/python hack/docs.py

.PHONY: manifests
manifests: ## Write manifests/install.yaml anew from manifests/base
	@hack/venv.sh dev
	@$(BIN)/python hack/manifests.py

.PHONY: format
format: ## Format the code and mend what ruff can mend
	@hack/venv.sh dev
	@$(BIN)/ruff format --quiet
	@$(BIN)/ruff check --fix --quiet

.PHONY: lock
lock: ## Resolve pyproject.toml into requirements/*.txt with hashes (ARGS="--upgrade")
	@hack/venv.sh dev
	@hack/lock.sh $(ARGS)

.PHONY: clean
clean: ## Remove .venv and everything that is made from the sources
	@rm -rf .venv build *.egg-info .coverage .coverage.* .mypy_cache .ruff_cache .import_linter_cache .hypothesis mutants
