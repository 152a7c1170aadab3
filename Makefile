# Two commands for a newcomer: `make demo` and `make test`. Both set up everything they need in .venv.
#
# DEPS says which releases of the dependencies they take; each has an environment of its own:
#   locked   requirements/locked.txt (default)
#   newest   whatever pip finds newest
#   lowest   requirements/lowest.txt, the lowest that pyproject.toml allows
#
# STACK is the LLaMA-Factory of `make lab` and `make proof` (tests/lab/stacks.yaml): release (default), lowest or main.
PYTHON ?= python3
DEPS ?= locked
TESTS ?=
STACK ?= $(or $(LFDOCTOR_LAB_STACK),release)
VENV := $(if $(filter locked,$(DEPS)),.venv,.venv-$(DEPS))
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
VERSIONS := $(if $(filter newest,$(DEPS)),--upgrade,--constraint requirements/$(DEPS).txt)
DEMO := fixtures/$(shell cat fixtures/DEMO)

.PHONY: demo test browser lab proof lint lock docs images bench expected clean

demo: $(VENV)/.installed  ## analyze a real failed run: its cause, the guide's steps, the patched config
	$(BIN)/lfdoctor analyze $(DEMO) --fail-on never

test: $(VENV)/.installed-dev $(if $(filter locked,$(DEPS)),lint)  ## the whole test suite (or TESTS), without torch
	$(BIN)/python -m pytest -n auto --dist worksteal $(TESTS)

browser: $(VENV)/.installed-dev  ## the HTML report of every fixture in a real Chromium (make test opens every sixth)
	LFDOCTOR_BROWSER_ALL=1 $(BIN)/python -m pytest -n auto --dist worksteal tests/browser

lint: $(VENV)/.installed-dev  ## style, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: $(VENV)/.installed-dev  ## write requirements/*.txt anew (with uv)
	$(BIN)/python -m pip install --quiet 'uv>=0.5'
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-header --no-annotate --extra dev \
	  pyproject.toml --output-file requirements/locked.txt
	$(BIN)/uv pip compile --quiet --upgrade --resolution lowest-direct --python-version 3.11 --no-header --no-annotate --extra all \
	  pyproject.toml --output-file requirements/lowest.txt

lab proof: export LFDOCTOR_LAB_STACK := $(STACK)

lab: $(VENV)/.installed-dev  ## the real LLaMA-Factory on CPU: faults injected, patches proven, runs healed (15-25 minutes)
	$(BIN)/python -m tests.lab.install
	$(BIN)/python tests/lab/parser_proof.py agreement
	LFDOCTOR_PROOF_STRIDE=4 $(BIN)/python tests/lab/parser_proof.py patches
	$(BIN)/python -m tests.lab.run
	$(BIN)/python -m tests.lab.live

proof: $(VENV)/.installed-dev  ## every patch of the grid (make lab: every fourth) and the memory estimate against traces (15 minutes, not in CI)
	$(BIN)/python -m tests.lab.install
	$(BIN)/python tests/lab/parser_proof.py agreement
	$(BIN)/python tests/lab/parser_proof.py patches
	$(BIN)/python tests/lab/memory_oracle.py
	$(BIN)/python tests/lab/dataset_proof.py

expected: $(VENV)/.installed-dev  ## rewrite fixtures/*/expected.yaml; the diff is what one reviews
	$(BIN)/python -m tests.expected

docs: $(VENV)/.installed-dev  ## rewrite docs/rules, docs/options, docs/versions.md, docs/accuracy.md and the JSON schemas, build the site into build/site
	$(BIN)/python docs/make_rules.py
	$(BIN)/python docs/make_notebook.py
	$(BIN)/python docs/make_options.py
	$(BIN)/lfdoctor show --schema > docs/report.schema.json
	$(BIN)/lfdoctor schema config > docs/train.schema.json
	$(BIN)/python benchmarks/make_versions.py
	$(BIN)/python benchmarks/accuracy.py page
	$(BIN)/mkdocs build --strict --quiet -f .mkdocs.yml

images: $(VENV)/.installed-dev  ## take the pictures in docs/images anew (Chromium, fonts with Korean and Chinese)
	$(BIN)/python docs/make_images.py

bench: $(VENV)/.installed-dev  ## ratios measured in one run each; see benchmarks/README.md
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/detectors_cost.py
	$(BIN)/python benchmarks/mutation.py
	$(BIN)/python benchmarks/memory_accuracy.py

$(VENV)/.installed: pyproject.toml $(wildcard requirements/*.txt)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(VERSIONS) --editable .
	@touch $@

# Linters and types are checked with the locked releases only.
$(VENV)/.installed-dev: pyproject.toml $(wildcard requirements/*.txt)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(VERSIONS) --editable '.[$(if $(filter locked,$(DEPS)),dev,test)]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf .venv .venv-newest .venv-lowest .lab dist build
