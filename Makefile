# `make help` lists the targets. Requires make and Python 3.11 with its venv module (Debian: python3-venv).
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
.PHONY: help venv dev run system-packages test fuzz test-gpu lint format s3 images push deploy engine engine-stop bench bench-containers bench-gpu quality lock clean

help: ## list the targets
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null || \
		grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST)

# --- set-up: done once, recorded by stamp files -------------------------------------------------------------------
$(BIN)/python:
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11)' 2>/dev/null || \
		{ echo "error: PYTHON=$(PYTHON): not Python 3.11 or newer; set PYTHON=..." >&2; exit 1; }
	@echo "creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { echo "error: $(VENV): could not be created; on Debian, apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.stamp-cytoloom: requirements/cytoloom.lock pyproject.toml | $(BIN)/python
	@echo "installing requirements/cytoloom.lock (several GB, minutes)"
	@$(INSTALL) --require-hashes -r requirements/cytoloom.lock
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.stamp-dev: requirements/dev.lock pyproject.toml | $(BIN)/python
	@echo "installing requirements/dev.lock (several GB, minutes)"
	@$(INSTALL) --no-deps --require-hashes -r requirements/dev.lock
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.stamp-cytoloom

venv: $(VENV)/.stamp-cytoloom ## set-up to run pipelines: .venv with the locked dependencies
dev: $(VENV)/.stamp-dev ## set-up for development: adds tests and linters

# --- use ----------------------------------------------------------------------------------------------------------
run: venv ## set-up and the demo on real images; results in runs/demo; with a detector: make run DEMO=detector
	@$(BIN)/python -m pipelines.demo $(DEMO)

s3: dev ## start an S3 server with a bucket on this machine, in the foreground
	@$(BIN)/python tests/helpers/s3_server.py

images: ## build the images of the stages with Docker: make images [TARGETS="cpu torch export"]
	@set -e; for target in $(TARGETS); do docker/build.sh $$target; done

push: ## push these images to a registry: make push REGISTRY=registry.example/lab
	@test -n "$(REGISTRY)" || { echo "error: REGISTRY: not set; make push REGISTRY=registry.example/lab" >&2; exit 1; }
	@set -e; for target in $(TARGETS); do \
		image=$$(CYTOLOOM_REGISTRY=$(REGISTRY) docker/build.sh $$target); docker push "$$image"; done

deploy: ## create in a cluster what Cytoloom needs besides Kubeflow: make deploy OVERLAY=gpu (or laptop)
	@test -f "k8s/overlays/$(OVERLAY)/kustomization.yaml" || \
		{ echo "error: OVERLAY=$(OVERLAY): no such overlay; one of: $(notdir $(wildcard k8s/overlays/*))" >&2; exit 1; }
	@kubectl apply -k k8s/overlays/$(OVERLAY)

engine: ## start a Docker engine if none runs (Debian, root): eval "$(make -s engine)"
	@docker/engine.sh start $(ENGINE)

engine-stop: ## stop that engine
	@docker/engine.sh stop $(ENGINE)

# --- checks -------------------------------------------------------------------------------------------------------
system-packages: ## check for Docker, kubectl, Chromium, ..., and install what is missing
	@tools/system_packages.sh

test: system-packages dev ## set-up and all tests except those for a GPU
	@$(BIN)/python tools/run_tests.py -m "not gpu" $(PYTEST)

fuzz: dev ## read files that are changed at random, for half an hour: make fuzz [FUZZING=30], in hundreds of files
	@CYTOLOOM_FUZZING=$(or $(FUZZING),30) $(BIN)/python -m pytest tests/fuzzing $(PYTEST)

test-gpu: dev ## the tests that need a GPU
	@$(BIN)/python -m pytest -m gpu $(PYTEST)

lint: dev ## check code, types, import rules, sizes, Dockerfile
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tools/sizes.py
	@$(BIN)/hadolint docker/Dockerfile

format: dev ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Call with the scripts, and options for each. One that fails does not stop the others; the error at the end lists all.
define each-bench
	@failed=; for script in $(1); do \
		echo "== $$script"; $(BIN)/python $$script $(2) || failed="$$failed $$script"; done; \
	test -z "$$failed" || { echo "error: failed:$$failed" >&2; exit 1; }
endef
BENCHES = $(wildcard tests/benchmarks/bench_*.py)
DOCKER_BENCH = tests/benchmarks/bench_containers.py

bench: dev ## benchmarks: start-up, executor, speed of the parts
	$(call each-bench,$(filter-out %_gpu.py $(DOCKER_BENCH),$(BENCHES)))

bench-containers: dev ## compare containers with processes; needs Docker: make bench-containers [CONTAINERS=--demo]
	@$(BIN)/python $(DOCKER_BENCH) $(CONTAINERS)

OF ?= segmentor classifier detector
QUALITY_SCRIPTS = $(foreach of,$(OF),tests/benchmarks/quality$(filter-out _segmentor,_$(of)).py)

quality: dev ## quality of every model (hours); of one, with options: make quality OF=segmentor QUALITY="--variants all"
	$(call each-bench,$(QUALITY_SCRIPTS),$(QUALITY))

bench-gpu: dev ## benchmarks that need a GPU
	@test -n "$(GPU_BENCHES)" || { echo "error: tests/benchmarks/bench_*_gpu.py: no such file; there is no benchmark for a GPU" >&2; exit 1; }
	@$(BIN)/python -c "import torch; raise SystemExit(not torch.cuda.is_available())" || \
		{ echo "error: PyTorch finds no GPU" >&2; exit 1; }
	$(call each-bench,$(GPU_BENCHES))

lock: dev ## resolve requirements/*.in again
	@cd requirements && $(LOCK) --upgrade --override override.in dev.in -o dev.lock
	@cd requirements && for set in cpu export faiss torch cytoloom; do $(LOCK) --upgrade $$set.in -c dev.lock -o $$set.lock || exit 1; done

clean: ## remove files of builds and tests; keep the venv and runs/
	@rm -rf *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
