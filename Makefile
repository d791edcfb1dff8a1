# Two commands: `make run` and `make test`. `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BASE_PYTHON ?=
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
CLIENTS := .clients
INSTALLED_CLIENTS := $(CLIENTS)/.installed
PIP := $(PYTHON) -m pip install --quiet --disable-pip-version-check

# Checks read the settings, which make secrets in DATA_DIR: theirs are thrown away.
IN_SCRATCH := scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	export DATA_DIR="$$scratch/data" DATABASE_URL= SECRET_KEY= ENCRYPTION_KEY= REDIS_URL= WORKERS=;

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: $(INSTALLED) ## Run the gateway with all it needs, on PORT (8000), until Ctrl-C
	@exec $(PYTHON) manage.py up

.PHONY: test
test: $(INSTALLED_DEV) ## Run the tests on SQLite and on PostgreSQL, both at once; test-e2e has the others
	@$(PYTHON) scripts/at_once.py \
		"$(PYTHON) -m pytest -n 2 --dist worksteal -q --engine=sqlite --ignore=tests/e2e" \
		"$(PYTHON) -m pytest -n 2 --dist worksteal -q --engine=postgres --ignore=tests/e2e"

.PHONY: test-e2e
test-e2e: $(INSTALLED_DEV) ## Run the tests that call whole gateways, on both engines at once
	@$(PYTHON) scripts/at_once.py \
		"$(PYTHON) -m pytest -n 2 --dist worksteal -q --engine=sqlite tests/e2e" \
		"$(PYTHON) -m pytest -n 2 --dist worksteal -q --engine=postgres tests/e2e"

.PHONY: test-long
test-long: $(INSTALLED_DEV) $(INSTALLED_CLIENTS) ## Run the tests that kill, soak (20 minutes) and race at size
	$(PYTHON) -m pytest -q -n 2 --dist worksteal -m hypothesis --hypothesis-profile=thorough --engine=sqlite
	SOAK_SECONDS=1200 $(PYTHON) -m pytest -q -m long --engine=sqlite
	SOAK_SECONDS=1200 $(PYTHON) -m pytest -q -m long --engine=postgres

ROUNDS ?= 1

.PHONY: test-faults
test-faults: $(INSTALLED_DEV) ## Kill, freeze and cut off whole processes, ROUNDS (1) times each
	ROUNDS=$(ROUNDS) $(PYTHON) -m pytest -q -n 2 --dist loadfile -m "long and slice" --engine=sqlite tests/faults
	ROUNDS=$(ROUNDS) $(PYTHON) -m pytest -q -n 2 --dist loadfile -m "long and slice" --engine=postgres tests/faults

.PHONY: test-clients
test-clients: CALLS ?= 2000
test-clients: $(INSTALLED_DEV) $(INSTALLED_CLIENTS) ## Try SDKs, LangChain and llm, then CALLS (2000) calls of all at once
	for engine in $(ENGINES); do \
		CALLS=$(CALLS) $(PYTHON) -m pytest -q -m "long or not long" --engine=$$engine tests/clients; \
	done

SEED ?=
ENGINES ?= sqlite postgres

.PHONY: nemesis
nemesis: SECONDS ?= 300
nemesis: $(INSTALLED_DEV) ## Play random faults for SECONDS (300) from SEED on each of ENGINES, then check every nano
	for engine in $(ENGINES); do \
		SEED=$(SEED) SECONDS=$(SECONDS) $(PYTHON) -m pytest -q -m long --show-capture=no --tb=short \
			--engine=$$engine tests/nemesis; \
	done

.PHONY: soak
soak: SECONDS ?= 1200
soak: $(INSTALLED_DEV) ## Call gateways at half of their capacity for SECONDS (1200) on each of ENGINES
	for engine in $(ENGINES); do \
		SOAK_SECONDS=$(SECONDS) $(PYTHON) -m pytest -q -m long --engine=$$engine tests/soak; \
	done

NAMES ?=

.PHONY: mutants
mutants: $(INSTALLED_DEV) ## Plant bugs into a copy, all or NAMES, and see that the tests find them (6 minutes)
	$(PYTHON) -m tests.mutants.run $(NAMES)

EXAMPLES ?= 20

.PHONY: test-schema
test-schema: $(INSTALLED_DEV) ## Make up calls from the schema as every role, EXAMPLES (20) a kind
	EXAMPLES=$(EXAMPLES) $(PYTHON) -m pytest -q -n 2 -m long --engine=postgres tests/made_up

OPTIONS ?=

.PHONY: bench
bench: $(INSTALLED_DEV) ## Measure the gateway beside nginx and a pass-through, and its dialects (see bench/README.md)
	$(PYTHON) -m bench.run table $(OPTIONS)
	$(PYTHON) -m bench.run dialects $(OPTIONS)

.PHONY: bench-all
bench-all: $(INSTALLED_DEV) ## Run all scenarios, one after the other
	$(PYTHON) -m bench.run all $(OPTIONS)

.PHONY: bench-dialects
bench-dialects: $(INSTALLED_DEV) ## Every dialect as it passes, and streams converted into another
	$(PYTHON) -m bench.run dialects $(OPTIONS)

.PHONY: bench-upstream
bench-upstream: $(INSTALLED_DEV) ## Is the upstream of the benchmark fast enough on this machine
	$(PYTHON) -m bench.run upstream $(OPTIONS)

.PHONY: bench-latency
bench-latency: $(INSTALLED_DEV) ## Latency added at one connection, beside the commit time
	$(PYTHON) -m bench.run latency $(OPTIONS)

.PHONY: bench-pacing
bench-pacing: $(INSTALLED_DEV) ## 500 slow streams: how late events come, memory
	$(PYTHON) -m bench.run pacing $(OPTIONS)

.PHONY: bench-keys
bench-keys: $(INSTALLED_DEV) ## 100,000 keys: load time, and the cost of an edit every second
	$(PYTHON) -m bench.run keys $(OPTIONS)

.PHONY: bench-rows
bench-rows: $(INSTALLED_DEV) ## A million recorded calls against an empty table
	$(PYTHON) -m bench.run rows $(OPTIONS)

.PHONY: bench-processes
bench-processes: $(INSTALLED_DEV) ## Two gateway processes against one
	$(PYTHON) -m bench.run processes $(OPTIONS)

.PHONY: bench-prompt
bench-prompt: $(INSTALLED_DEV) ## Prompts of 100,000 tokens: what they add, and to the small calls beside them
	$(PYTHON) -m bench.run prompt $(OPTIONS)

.PHONY: bench-writer
bench-writer: $(INSTALLED_DEV) ## How far the ledger's writer goes alone, and what stops it
	$(PYTHON) -m bench.run writer $(OPTIONS)

.PHONY: bench-api
bench-api: $(INSTALLED_DEV) ## Time every list and report of the REST API with a million recorded calls
	$(PYTHON) -m bench.api

.PHONY: check
check: $(INSTALLED_DEV) ## Check format, lint, types, imports, migrations, schema and generated docs
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	@$(IN_SCRATCH) set -x; \
	$(VENV)/bin/mypy; \
	$(VENV)/bin/lint-imports; \
	$(PYTHON) manage.py check --deploy --fail-level ERROR; \
	$(PYTHON) manage.py makemigrations --check --dry-run; \
	$(PYTHON) manage.py spectacular --format openapi-json --validate --fail-on-warn --file "$$scratch/openapi.json"; \
	diff -u openapi.json "$$scratch/openapi.json" || { echo "openapi.json is stale: make openapi"; exit 1; }; \
	$(PYTHON) manage.py generate_docs --check

.PHONY: format
format: $(INSTALLED_DEV) ## Format the code and fix what can be fixed
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

.PHONY: openapi
openapi: $(INSTALLED) ## Write openapi.json
	@$(IN_SCRATCH) $(PYTHON) manage.py spectacular --format openapi-json --validate --fail-on-warn --file openapi.json

.PHONY: docs
docs: $(INSTALLED) ## Write docs/compatibility.md, errors.md, settings.md and the table of metrics
	@$(IN_SCRATCH) $(PYTHON) manage.py generate_docs

.PHONY: clean
clean: ## Remove what can be made again; never DATA_DIR
	rm -rf $(VENV) $(CLIENTS) static .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find apps auditing tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The one that is asked for (`make run BASE_PYTHON=/usr/bin/python3.11`), the tested versions, then
# whatever there is that is new enough.
$(PYTHON):
	@for candidate in $(BASE_PYTHON) python3.13 python3.12 python3.11 python3.14 python3 python; do \
		if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			exec "$$candidate" -m venv --clear $(VENV); \
		fi; \
	done; \
	echo "error: Python 3.11 or newer with its venv module is needed; found $$(python3 --version 2>/dev/null || echo none)." >&2; exit 1

# The stamps lie inside the environment, so that removing it removes them.
$(INSTALLED): requirements.txt | $(PYTHON)
	@echo "Installing the requirements …"
	@$(PIP) -r requirements.txt
	@touch $@

$(INSTALLED_DEV): requirements-dev.txt requirements.txt | $(PYTHON)
	@echo "Installing the requirements for development …"
	@$(PIP) -r requirements-dev.txt
	@touch $(INSTALLED) $@

# Clients of other people, in environments of their own: what they need is none of our business.
$(INSTALLED_CLIENTS): tests/clients/requirements.txt tests/clients/package.json tests/clients/package-lock.json | $(PYTHON)
	@command -v npm >/dev/null && node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' || { \
		echo "error: Node.js 20 or newer with npm is needed to try the clients; found $$(node --version 2>/dev/null || echo none)." >&2; exit 1; }
	@echo "Installing the clients …"
	@$(PYTHON) -m venv --clear $(CLIENTS)/venv
	@$(CLIENTS)/venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
	@cp tests/clients/package.json tests/clients/package-lock.json $(CLIENTS)
	@npm ci --prefix $(CLIENTS) --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: catalogue
catalogue: $(INSTALLED_DEV) ## Write apps/ai_models/known_models.json, with the prices of today
	$(PYTHON) scripts/make_catalogue.py
