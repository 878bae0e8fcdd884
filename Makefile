# Both commands make and use .venv in this folder; nothing else on the machine is touched.
PYTHON ?= python3
BIN := .venv/bin
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
endif

KERNELS := $(wildcard src/restore_rwkv/ops/cpu/*.[ch])

# One process a core, of one thread each.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

.PHONY: demo test test-fast check clean
.DEFAULT_GOAL := demo

demo: .venv/installed
	$(BIN)/restore-rwkv demo

test: .venv/test-installed
	$(PYTEST)

test-fast: .venv/test-installed
	$(PYTEST) -m "not slow"

check: .venv/test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/bin-made:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

.venv/installed: .venv/bin-made pyproject.toml constraints.txt $(KERNELS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/test-installed: .venv/bin-made pyproject.toml constraints.txt $(KERNELS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch .venv/installed $@

clean:
	rm -rf .venv build dist
