# make run: the whole pipeline on the embedded sample. make test: lint and all tests, as CI runs them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VERSION := $(shell sed -n "s/^ *version='\(.*\)',/\1/p" setup.py)
# A file's tests stay together: they share whole runs of the pipeline.
PARALLEL := --numprocesses 2 --dist loadfile --no-loadscope-reorder
# Made anew when the lock or the package's metadata changes, and only then.
STAMP := $(VENV)/.made-from-$(shell cat requirements-dev.txt requirements-uv.txt setup.py | sha256sum | cut -c1-16)

NOT_INSTALLED := the packages could not be installed, for the reason above. Behind a proxy set HTTPS_PROXY, and for an \
  index or certificate of your own PIP_INDEX_URL with UV_DEFAULT_INDEX, and SSL_CERT_FILE; then run the same again.

.PHONY: env run test test-fast campaign lint format docs lock images clean

run: $(STAMP)
	$(BIN)/python -m pipeline run --preset sample

test: lint
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: lint
	$(BIN)/python -m pytest $(PARALLEL) -m 'not slow'

# Kills runs at 20 seeded moments, then breaks their storage; see docs/operations.md.
campaign: $(STAMP)
	$(BIN)/python -m tests.campaign --kills 20 --faults

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site of the documents, in build/site; a link that leads nowhere fails.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The site is build/site/index.html; to search it, run: $(BIN)/python -m http.server --directory build/site"

env: $(STAMP)

$(STAMP):
	@command -v $(PYTHON) >/dev/null || \
	  { echo "error: there is no $(PYTHON) here; install Python 3.11, then run: make PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) pipeline/preflight.py .
	$(PYTHON) -m venv --clear $(VENV)  # a killed installation may have left half a package
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt || \
	  { echo "error: $(NOT_INSTALLED)" >&2; exit 2; }
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements-dev.txt requirements-uv.txt || \
	  { echo "error: $(NOT_INSTALLED)" >&2; exit 2; }
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

# Resolves anew; the locks carry names, versions and hashes, and no address.
lock: $(STAMP)
	echo uv | $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --upgrade \
	  - --output-file requirements-uv.txt
	$(BIN)/uv pip compile --quiet --override overrides.txt --generate-hashes --no-header --upgrade \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-emit-index-url --no-emit-find-links \
	  setup.py --output-file requirements.txt
	$(BIN)/uv pip compile --quiet --override overrides.txt --generate-hashes --no-header --no-annotate --upgrade \
	  --constraint requirements.txt \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-emit-index-url --no-emit-find-links \
	  setup.py --extra dev --extra onnx --output-file requirements-dev.txt
	$(BIN)/uv pip compile --quiet --override overrides.txt --override kubeflow/overrides-gpu.txt --generate-hashes \
	  --no-header --no-annotate --upgrade --constraint requirements.txt \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-emit-index-url --no-emit-find-links \
	  setup.py --output-file kubeflow/requirements-gpu.txt

# IMAGE=REGISTRY/NAME: the images that a compiled package runs in, NAME:VERSION and NAME:VERSION-gpu, and that of Beam's
# workers, NAME:VERSION-worker. Needs Docker.
images:
	@test -n "$(IMAGE)" || { echo "error: make images IMAGE=REGISTRY/NAME" >&2; exit 2; }
	docker build --file kubeflow/Dockerfile --target cpu --tag $(IMAGE):$(VERSION) --build-arg VERSION=$(VERSION) \
	  --build-arg LOCK_DIGEST=$(shell sha256sum requirements.txt | cut -c1-64) .
	docker build --file kubeflow/Dockerfile --target gpu --tag $(IMAGE):$(VERSION)-gpu --build-arg VERSION=$(VERSION) \
	  --build-arg LOCK_DIGEST=$(shell sha256sum kubeflow/requirements-gpu.txt | cut -c1-64) .
	docker build --file kubeflow/Dockerfile --target worker --tag $(IMAGE):$(VERSION)-worker \
	  --build-arg VERSION=$(VERSION) --build-arg LOCK_DIGEST=$(shell sha256sum requirements.txt | cut -c1-64) .

clean:
	rm -rf $(VENV) runs build *.egg-info
