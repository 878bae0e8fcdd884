# Every command makes and uses .venv in this folder; nothing else on the machine is touched.
PYTHON ?= python3
BIN := .venv/bin
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
endif

KERNELS := $(wildcard src/restore_rwkv/ops/cpu/*.[ch])

# One process a core, of one thread each.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

CHECKS := lint formatted types imports workflows

.PHONY: demo page try test test-fast check $(CHECKS) docs train-shipped benchmark clean
.DEFAULT_GOAL := demo

demo: .venv/installed
	$(BIN)/restore-rwkv demo --overwrite

# A page in the browser with the demo scan to restore, until Ctrl-C.
page: .venv/page-installed
	$(BIN)/restore-rwkv open

test: .venv/test-installed
	$(PYTEST)

test-fast: .venv/test-installed
	$(PYTEST) -m "not slow"

# .pre-commit-config.yaml runs the same targets before a commit.
check: $(CHECKS)

$(CHECKS): .venv/test-installed

lint:
	$(BIN)/ruff check .

formatted:
	$(BIN)/ruff format --check .

# The oldest Python supported, by pyproject.toml, and a newer one.
types:
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.13

imports:
	$(BIN)/lint-imports

workflows:
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

# Needs Python 3.11 or later, as Sphinx does. Warnings are errors. Carries build/try, if that was made.
docs: .venv/docs-installed
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html

# The page that restores in the browser (docs/try.md), in build/try; with WEBGPU=1 that too. Needs npm or
# the network once. More words for it go into TRY="--weights light-mri-sr".
try: .venv/test-installed
	$(BIN)/python -m web.build $(if $(WEBGPU),--webgpu) $(TRY)

# Resumes the runs of the shipped weights, in runs/; `python -m benchmarks.train_shipped --status`
# says where they stand.
train-shipped: .venv/test-installed
	OMP_NUM_THREADS=1 nice -n 19 $(BIN)/python -m benchmarks.train_shipped

# The open benchmark (docs/benchmark.md); words for it go into BENCHMARK="--weights FILE".
benchmark: .venv/test-installed
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.open_benchmark $(BENCHMARK)

.venv/bin-made:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

.venv/installed: .venv/bin-made pyproject.toml constraints.txt $(KERNELS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/page-installed: .venv/bin-made pyproject.toml constraints.txt $(KERNELS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[page]"
	touch .venv/installed $@

.venv/test-installed: .venv/bin-made pyproject.toml constraints.txt $(KERNELS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch .venv/installed $@

.venv/docs-installed: .venv/bin-made pyproject.toml constraints.txt $(KERNELS)
	$(BIN)/python -c "import sys; sys.exit('make docs: needs Python 3.11 or later, as Sphinx does' if sys.version_info < (3, 11) else 0)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch .venv/installed $@

clean:
	rm -rf .venv build dist docs/_build docs/api
