# `make repro` runs the main job, `make test` passes the tests; both need nothing but Python 3.11 to 3.13.
PYTHON ?= python3
BIN := .venv/bin
RUN := PATH="$(abspath $(BIN)):$$PATH"
# uv is several times faster, but it looks at no setting of pip: `make UV= repro` does without.
UV ?= $(shell command -v uv)
INSTALL := $(if $(UV),$(UV) pip install --python .venv,$(BIN)/python -m pip install --no-compile)
export DO_NOT_TRACK := 1
# Images of containers set it. Nothing is compiled at installation, so each of many processes would compile anew.
unexport PYTHONDONTWRITEBYTECODE
# Tests run in as many processes, each on one thread; those of a file stay together and share what is prepared.
WORKERS ?= 2
PYTEST := python -m pytest --numprocesses $(WORKERS) --dist loadfile
# For `make hear`: what the pipeline has trained, else untrained weights.
MODEL ?= $(firstword $(wildcard data/checkpoints/pretrained) first_steps/encoder)

.PHONY: repro test slow bench docs hear lint format clean

repro: .venv/installed  ## raw audio -> report, with params.yaml
	$(RUN) dvc repro

test: .venv/installed  ## the tests, a few minutes
	$(RUN) $(PYTEST) -m "not slow" --dist worksteal

slow: .venv/installed  ## those that take more than ten seconds: real servers, kills, the whole pipeline
	$(RUN) $(PYTEST) -m slow --no-loadscope-reorder --durations 20

bench: .venv/installed  ## every claim of speed beside its peer, a quarter of an hour
	$(RUN) python -m benchmarks

docs: .venv/installed  ## the documentation, as a site that needs nothing from outside: site/index.html
	$(RUN) NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

hear: .venv-hear/tensorflow.py $(filter first_steps/encoder,$(MODEL))  ## hear-validator on MODEL, whatever matpac.load opens
	$(RUN) PYTHONPATH=".venv-hear:$$PYTHONPATH" python -m hearvalidator.validate matpac.hear --model $(MODEL)

lint: .venv/installed
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy

format: .venv/installed
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

# Every package is pinned, so nothing needs to be resolved, which takes pip minutes; nor compiled, which happens at
# the first import of the few modules that are used.
.venv/installed: pyproject.toml constraints.txt
	@echo "Installing the $$(wc -l < constraints.txt) packages of constraints.txt into .venv: 6 GB, most of it PyTorch; minutes."
	$(PYTHON) -m venv .venv
	$(INSTALL) --no-deps --requirement constraints.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	touch $@

# hear-validator declares Python < 3.9, which it does not need, and imports TensorFlow (2 GB) for a single
# `isinstance(model, tf.Module)`, which a stand-in answers. Its own folder keeps both out of .venv.
.venv-hear/tensorflow.py: .venv/installed
	$(BIN)/python -m pip install --quiet --no-deps --ignore-requires-python --upgrade --target .venv-hear hearvalidator==2021.0.6
	echo 'class Module: """No model of ours is one."""' > $@

first_steps/encoder: .venv/installed
	$(RUN) python docs/examples/first_steps.py

clean:  ## all results and the environment; recordings of `source:` are not touched
	rm -rf .venv .venv-hear first_steps data/.work data/[a-z]*/ data/corpus.json .dvc/cache .prefect site dvc_plots dvc.lock
