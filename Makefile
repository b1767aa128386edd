# Everything a newcomer, a developer or a build machine types. `make` alone lists it.
# Each target brings what it needs itself, and what is already there costs milliseconds.

# ensure-tools puts uv here when the machine has none.
export PATH := $(CURDIR)/.cache/tools/bin:$(PATH)
# Tests start hundreds of interpreters: each reads the byte-code that the first one kept.
unexport PYTHONDONTWRITEBYTECODE
export UV_COMPILE_BYTECODE := 1
PYTHON := uv run --frozen python
MAKEFLAGS += --no-print-directory

.DEFAULT_GOAL := help
.PHONY: help setup tools demo attack servers test unit conformance check format bench schemas migrate up down clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: tools ## Bring uv, the packages, a Docker Engine and the images
	@scripts/ensure-engine
	@scripts/ensure-images

tools:
	@scripts/ensure-tools

demo: setup ## See a plugin published, installed, called and stopped (KEEP=1 leaves it running)
	@$(PYTHON) scripts/demo.py $(if $(KEEP),--keep)

attack: setup ## Attack a live sandbox in every known way, and see what stops each attack (ARGS=--json)
	@uv run --frozen wirthforge demo attack $(ARGS)

# strace is what kills a host at its N-th system call (tests/faults.py); node and npm are for servers written for them, git for
# the repository that one of them reads.
test: setup unit ## Run all tests but those of other people's servers
	@scripts/ensure-tools strace git node npm
	@uv run --frozen pytest --ignore tests/unit --ignore tests/architecture -m "not servers" $(ARGS)

servers: setup ## Run unmodified MCP servers from PyPI and npm in sandboxes (brings their packages; some minutes)
	@scripts/ensure-tools git node npm
	@uv run --frozen pytest -m servers $(ARGS)

# On every core. The directory is short, for sockets lie in it whose paths have a bound.
unit: tools ## Run the tests that need no engine
	@directory=$$(mktemp -d /tmp/wf.XXXX) && trap 'rm -rf "$$directory"' EXIT && \
		uv run --frozen pytest -n auto --basetemp "$$directory/t" tests/unit tests/architecture $(ARGS)

conformance: setup ## Run the protocol's own conformance suite against the host's MCP endpoint (needs npm)
	@$(PYTHON) -m tests.conformance

check: tools ## Check format, style, types, import directions and exported schemas
	@uv run --frozen ruff format --check
	@uv run --frozen ruff check
	@uv run --frozen mypy
	@uv run --frozen lint-imports
	@$(PYTHON) scripts/export_schemas.py --check

format: tools ## Format the code and mend what can be mended
	@uv run --frozen ruff format
	@uv run --frozen ruff check --fix

bench: setup ## Measure, each figure beside a peer's in the same run
	@$(PYTHON) -m bench $(ARGS)

schemas: tools ## Export the JSON Schemas and OpenAPI documents to schemas/
	@$(PYTHON) scripts/export_schemas.py

migrate: tools ## Bring the databases of this machine's host and marketplace up to date
	@$(PYTHON) -m alembic --config migrations/alembic.ini --name host upgrade head
	@$(PYTHON) -m alembic --config migrations/alembic.ini --name marketplace upgrade head

up: ## Run marketplace and host as services with Docker Compose
	@scripts/ensure-engine
	@scripts/ensure-compose
	@scripts/ensure-images --all
	@docker compose up --detach --wait --wait-timeout 180
	@docker compose ps marketplace host --format "  {{.Service}} http://{{range .Publishers}}{{.URL}}:{{.PublishedPort}}{{end}}"

down: ## Stop the services; their data stays
	@scripts/ensure-compose
	@docker compose down --timeout 30

clean: ## Remove caches, builds and superseded images; data and current images stay
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage dist build
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
	@! docker version >/dev/null 2>&1 || docker image prune --force --filter label=wirthforge.recipe >/dev/null
