# The verbs of the project. Every one of them works on a bare clone: .venv is made when it is missing or out of date.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder
LARGE := $(PYTEST) -m "slow or counted"

.PHONY: demo golden verify test test-extras test-oldest test-slow test-full fuzz lint format generate docs reproduce every-method thin-families bench gpu clean

demo: $(INSTALLED)  ## prune LeNet-5 on the embedded digits, about a minute
	$(BIN)/compress train --schedule lenet5_agp --config lenet5_digits

golden: $(INSTALLED)  ## one digest for each shipped schedule, to compare before and after a change; RECORD=1 DATA=folder
	$(BIN)/python -m benchmarks.golden $(if $(RECORD),--record) $(if $(DATA),--data "$(DATA)")

DIGITS := lenet5_agp lenet5_alternating lenet5_elastic lenet5_filters mlp_dropout_ratio resnet20_depth resnet18_l0
verify: $(INSTALLED)  ## the claims of the shipped digits schedules; SEEDS=3 for all of their seeds
	$(BIN)/compress verify $(DIGITS) --seeds $(or $(SEEDS),1) --junit runs/verify.xml

test: $(INSTALLED)  ## the whole suite but the slow tests
	$(PYTEST) -m "not slow and not extras"

INTEROP := $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	-e '.[dev,interop,lightning,onnx,transformers,tensorboard,mlflow,wandb,ray,docs,browser]'
test-extras: $(INSTALLED)  ## the site, and with other libraries, which are installed into .venv: after `make test`
	$(INTEROP) || $(INTEROP) || echo "what could not be installed is skipped, or a failure where CI=true"
	command -v chromium > /dev/null || apt-get install -y --no-install-recommends chromium || true
	$(MAKE) docs
	$(PYTEST) -m extras

test-slow: $(INSTALLED)  ## the slow tests, larger counts of kills, damaged files and fuzzed ones, and a quarter of the zoo
	KILLS=8 DEAD_RANKS=3 FLIPS=60 FUZZ=500 ZOO=quarter $(LARGE)

test-full: $(INSTALLED)  ## all counts; the last line is for the note of a change
	BENCH=1 KILLS=25 DEAD_RANKS=20 FLIPS=200 FUZZ=2000 FUZZ_TRAINED=2000 ZOO=all $(LARGE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,ray]'
	SWEEP=12 $(BIN)/pytest -m extras tests/extras/test_sweep_on_ray.py
	@echo "make test-full passed at $$(git describe --always --abbrev=40 --dirty)"

test-oldest:  ## the suite with the lowest version of every dependency, in .venv-oldest (5 GB)
	$(PYTHON) -m venv .venv-oldest
	$(PYTHON) tests/oldest.py > .venv-oldest/constraints.txt
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-oldest/constraints.txt -e '.[dev]'
	.venv-oldest/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not extras"

fuzz: $(INSTALLED)  ## 10,000 mutated schedules and configurations, 2,000 trained: about fifteen minutes
	FUZZ=10000 $(BIN)/pytest tests/fuzz

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: $(INSTALLED)  ## the JSON Schemas, and the generated parts of README.md and docs/
	$(BIN)/python -m compressor.cli.reference .
	$(BIN)/compress schema > schedules/schema.json
	$(BIN)/compress schema --config > configs/schema.json

DOCS := $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
docs: $(INSTALLED)  ## the site, in site/; warnings and broken links are errors; once the extra is installed, without a network
	$(BIN)/python -c "import material, mkdocstrings_handlers.python" 2> /dev/null || $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

reproduce: $(INSTALLED)  ## the papers' tables beside ours: ONLY=row,row SEEDS=n DATA=folder AGAIN=1 CHECK=1 TUNE=1 SET="key=value ..."
	$(BIN)/python -m benchmarks.reproduce --only "$(ONLY)" --seeds $(or $(SEEDS),1) $(if $(DATA),--data "$(DATA)") \
		$(if $(AGAIN),--again) $(if $(CHECK),--check) $(if $(TUNE),--tune --set $(SET))

every-method: $(INSTALLED)  ## every method on one network, hours, resumable: DATA=folder JOBS=n
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.every_method --jobs $(or $(JOBS),1) $(if $(DATA),--data "$(DATA)")

thin-families: $(INSTALLED)  ## the tables of docs/thinning.md, an hour: networks that were tried before only with AGAIN=1
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,bench,timm]'
	$(BIN)/python -m benchmarks.thinning_table --families --write $(if $(AGAIN),--again)

PEERS := $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,bench]'
bench: $(INSTALLED)  ## every benchmark into docs/benchmarks.md, hours, resumable: ONLY=row,row AGAIN=1 QUICK=1
	$(if $(QUICK),,$(PEERS) || echo "packages that could not be installed are left out")
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench --only "$(ONLY)" $(if $(AGAIN),--again) $(if $(QUICK),--quick)

OWN := $(filter file,$(origin PYTHON))
gpu: $(if $(OWN),$(INSTALLED))  ## a machine with one GPU, 8 minutes: PYTHON=python3 installs nothing; GPU_FILES=folder OUT=folder SMOKE=1
	PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" PYTHONUNBUFFERED=1 $(if $(OWN),$(BIN)/python,$(PYTHON)) \
		-m benchmarks.gpu --only "$(ONLY)" $(if $(OUT),--out "$(OUT)") $(if $(SMOKE),--smoke)

clean:
	rm -rf .venv .venv-oldest build dist

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@
