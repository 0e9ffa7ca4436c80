# `make repro` runs the main job, `make test` passes the tests; both need nothing but Python 3.11 to 3.13.
PYTHON ?= python3
BIN := .venv/bin
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"
export DO_NOT_TRACK := 1

.PHONY: repro test slow bench docs lint format clean

repro: .venv/installed  ## raw audio -> report, with params.yaml
	$(RUN) dvc repro

test: .venv/installed  ## the tests, a few minutes
	$(RUN) python -m pytest -m "not slow"

slow: .venv/installed  ## those that take more than ten seconds: real servers, kills, the whole pipeline
	$(RUN) python -m pytest -m slow

bench: .venv/installed  ## every claim of speed beside its peer, a quarter of an hour
	$(RUN) python -m benchmarks

docs: .venv/installed  ## the documentation, as a site that needs nothing from outside: site/index.html
	$(RUN) NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

lint: .venv/installed
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy

format: .venv/installed
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:  ## all results and the environment; recordings of `source:` are not touched
	rm -rf .venv data/.work data/[a-z]*/ data/corpus.json .dvc/cache .prefect site dvc_plots dvc.lock
