# Everything starts here: `make help`. Needs make and Python 3.11 with its venv module (Debian: python3-venv).
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCK    = $(abspath $(BIN))/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11
ENGINE ?= build/engine
TARGETS ?= cpu export faiss torch
GPU_BENCHES ?= $(wildcard tests/benchmarks/bench_*_gpu.py)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv dev run system-packages test test-gpu lint format s3 images push deploy engine engine-stop bench bench-containers bench-gpu quality lock clean

help: ## this list
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null || \
		grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST)

# --- set-up: once, then a stamp says that it stands ---------------------------------------------------------------
$(BIN)/python:
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11)' 2>/dev/null || \
		{ echo "error: Python 3.11 or newer is needed; name it with PYTHON=..." >&2; exit 1; }
	@echo "making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { echo "error: on Debian, apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.stamp-cytoloom: requirements/cytoloom.lock pyproject.toml | $(BIN)/python
	@echo "installing requirements/cytoloom.lock (several GB, minutes)"
	@$(INSTALL) --require-hashes -r requirements/cytoloom.lock
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.stamp-dev: requirements/dev.lock pyproject.toml | $(BIN)/python
	@echo "installing requirements/dev.lock (several GB, minutes)"
	@$(INSTALL) --require-hashes -r requirements/dev.lock
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.stamp-cytoloom

venv: $(VENV)/.stamp-cytoloom ## set-up for running: .venv with the locked dependencies
dev: $(VENV)/.stamp-dev ## set-up for development: tests and linters as well

# --- use ----------------------------------------------------------------------------------------------------------
run: venv ## set-up and the demo: real images, results in runs/demo
	@$(BIN)/python -m pipelines.demo

s3: dev ## a real S3 server on this machine, in the foreground, with a bucket
	@$(BIN)/python tests/helpers/s3_server.py

images: ## the images of the stages, built with Docker: make images [TARGETS="cpu torch export"]
	@set -e; for target in $(TARGETS); do docker/build.sh $$target; done

push: ## these images to a registry: make push REGISTRY=registry.example/lab
	@test -n "$(REGISTRY)" || { echo "error: make push REGISTRY=registry.example/lab" >&2; exit 1; }
	@set -e; for target in $(TARGETS); do \
		image=$$(CYTOLOOM_REGISTRY=$(REGISTRY) docker/build.sh $$target); docker push "$$image"; done

deploy: ## what a cluster needs beside Kubeflow: make deploy OVERLAY=gpu (or laptop)
	@test -f "k8s/overlays/$(OVERLAY)/kustomization.yaml" || \
		{ echo "error: make deploy OVERLAY=... one of: $(notdir $(wildcard k8s/overlays/*))" >&2; exit 1; }
	@kubectl apply -k k8s/overlays/$(OVERLAY)

engine: ## a Docker engine where none runs (Debian, root); then: eval "$(make -s engine)"
	@docker/engine.sh start $(ENGINE)

engine-stop: ## end that engine
	@docker/engine.sh stop $(ENGINE)

# --- checks -------------------------------------------------------------------------------------------------------
system-packages: ## what the tests need of the system (Docker, kubectl, Chromium, ...), installed if missing
	@tools/system_packages.sh

test: system-packages dev ## set-up and all tests but those for a GPU
	@$(BIN)/python -m pytest -m "not gpu" $(PYTEST)

test-gpu: dev ## the tests that need a GPU
	@$(BIN)/python -m pytest -m gpu $(PYTEST)

lint: dev ## ruff, mypy, import rules, code sizes, Dockerfile
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tools/sizes.py
	@$(BIN)/hadolint docker/Dockerfile

format: dev ## put the code in the house's form
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# One that fails does not keep the others from running; which failed is said at the end.
define each-bench
	@failed=; for script in $(1); do \
		echo "== $$script"; $(BIN)/python $$script || failed="$$failed $$script"; done; \
	test -z "$$failed" || { echo "error: failed:$$failed" >&2; exit 1; }
endef
BENCHES = $(wildcard tests/benchmarks/bench_*.py)
OF_DOCKER = tests/benchmarks/bench_containers.py

bench: dev ## what it must reach: start-up, executor, speed of the parts
	$(call each-bench,$(filter-out %_gpu.py $(OF_DOCKER),$(BENCHES)))

bench-containers: dev ## what containers cost; needs Docker: make bench-containers [CONTAINERS=--demo]
	@$(BIN)/python $(OF_DOCKER) $(CONTAINERS)

quality: dev ## the quality table, of the default (hours); ablations as well: QUALITY="--variants all"
	@$(BIN)/python tests/benchmarks/quality.py $(QUALITY)

bench-gpu: dev ## the benchmarks that need a GPU
	@test -n "$(GPU_BENCHES)" || { echo "error: no tests/benchmarks/bench_*_gpu.py, so nothing to run" >&2; exit 1; }
	@$(BIN)/python -c "import torch; raise SystemExit(not torch.cuda.is_available())" || \
		{ echo "error: PyTorch sees no GPU here" >&2; exit 1; }
	$(call each-bench,$(GPU_BENCHES))

lock: dev ## resolve requirements/*.in anew
	@cd requirements && $(LOCK) --upgrade dev.in -o dev.lock
	@cd requirements && for set in cpu export faiss torch cytoloom; do $(LOCK) --upgrade $$set.in -c dev.lock -o $$set.lock || exit 1; done

clean: ## remove what a build or a test leaves; the venv and runs/ stay
	@rm -rf *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
