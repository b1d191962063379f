# Two commands matter: `make quickstart` shows the package at work, `make test` checks it (and is what CI runs).
#
#   make quickstart                               train a few minutes on phantoms, make the gallery
#   make quickstart DATA=my_images OUTPUT=out     the same with your own images
#   make test                                     lint, types, and every test that is not slow
#   make test-all                                 the slow tests too
#   make docs                                     the reference of all public names: site/api/echocare_hf.html
#   make test PYTEST_ARGS="-k anatomy"            some of them
#
# Both make .venv on first use. TORCH names the PyTorch to install there, e.g. TORCH="torch==2.13.0".

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
PYTEST_ARGS ?=
ARGS ?=

BIN := $(VENV)/bin
QUICKSTART_ARGS := $(if $(DATA),--data "$(DATA)") $(if $(OUTPUT),--output "$(OUTPUT)") $(ARGS)

.PHONY: help quickstart test test-all docs lint format clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -10

# PyTorch goes in first and alone: packages that ask for it afterwards then keep the build that TORCH chose.
$(VENV)/torch.stamp:
	$(PYTHON) -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --upgrade pip
	"$(BIN)/python" -m pip install "$(TORCH)"
	@touch "$@"

$(VENV)/all.stamp: $(VENV)/torch.stamp pyproject.toml
	"$(BIN)/python" -m pip install -e ".[all]"
	@touch "$@"

$(VENV)/dev.stamp: $(VENV)/torch.stamp pyproject.toml
	"$(BIN)/python" -m pip install -e ".[dev]"
	@touch "$@"

quickstart: $(VENV)/all.stamp
	"$(BIN)/python" training/quickstart.py $(QUICKSTART_ARGS)

lint: $(VENV)/dev.stamp
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"

format: $(VENV)/dev.stamp
	"$(BIN)/ruff" check --fix .
	"$(BIN)/ruff" format .

# One test process a core with one thread each: small models gain nothing from more threads.
PYTEST := OMP_NUM_THREADS=1 "$(BIN)/python" -m pytest -n auto --dist loadfile

test: lint
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-all: lint
	$(PYTEST) $(PYTEST_ARGS)

docs: $(VENV)/dev.stamp
	"$(BIN)/python" -m pdoc --docformat google --output-directory site/api echocare_hf

# Everything that the commands above made, apart from results.
clean:
	rm -rf "$(VENV)" build dist site src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
