# make quickstart   train a small language model on Python's own sources, and let it write
# make test         every test that can run on this machine
# make check        formatting, lint, types
# make bench        the benchmarks, each printing JSON; those of what is not here are left out
# make clean        remove what these targets made
#
# PYTHON=/path/to/python3.12 chooses the interpreter of .venv; any from 3.11 on will do.

PYTHON ?=
BIN := .venv/bin
PLUGINS := $(wildcard plugins/*/pyproject.toml)
# The compiled kernels: not needed, but what makes training fast.
CPU := $(wildcard plugins/rnnfarm-cpu/pyproject.toml)
# What compiles GPU kernels where there is no GPU, so that tests can do it.
COMPILE = $(subst rnnfarm-cupy,'rnnfarm-cupy[compile]',$(1))
EDITABLE = $(patsubst %/pyproject.toml,--editable %,$(1))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PROMPT := import os\n\n\ndef main(
# Products in tests are small: threads would only wait for each other.
OMP_NUM_THREADS ?= 1
export OMP_NUM_THREADS
# Tests start hundreds of processes; without bytecode each compiles every module anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help quickstart test check bench clean

help:
	@sed -n 's/^# \(make [a-z]* .*\)/\1/p' Makefile

quickstart: .venv/.core
	$(BIN)/rnnfarm train jobs/quickstart.toml --resume
	@echo
	@echo 'A sample; the first lines are given:'
	@echo
	@printf '$(PROMPT)'
	@$(BIN)/rnnfarm generate runs/quickstart --prompt "$$(printf '$(PROMPT)')" \
	    --length 500 --temperature 0.7
	@echo
	@echo 'The run is in runs/quickstart. Next:'
	@echo '  . .venv/bin/activate                          puts rnnfarm on the path'
	@echo '  rnnfarm report runs/quickstart                its curves as a page'
	@echo '  rnnfarm generate runs/quickstart --prompt "class "'
	@echo '  rnnfarm explain lstm                          its equations and their gradient'
	@echo '  rnnfarm new-plugin my-cells                   a cell of your own (see README.md)'

test: .venv/.dev
	$(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 4 --dist loadgroup

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy $(dir $(wildcard plugins/*/*/__init__.py))

bench: .venv/.dev
	@for script in benchmarks/*.py; do echo "$$script" >&2; $(BIN)/python $$script || [ $$? -eq 4 ] || exit 1; done

clean:
	rm -rf .venv runs/quickstart data/python-source
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info plugins/*/*.egg-info
	find rnnfarm tests plugins benchmarks -name __pycache__ -prune -exec rm -rf {} +

# The first interpreter that is there, works, and is new enough.
$(BIN)/python:
	@for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        echo "making .venv with $$("$$python" --version)"; \
	        "$$python" -m venv --clear .venv && exit 0; \
	        echo "$$python could not make .venv; where it says that ensurepip is missing," \
	             "install your system's python3-venv package" >&2; \
	        rm -rf .venv; exit 1; \
	    fi; \
	done; \
	echo "rnnfarm needs Python 3.11 or newer, and there is none in" \
	     "$(or $(PYTHON),python3.13 python3.12 python3.11 python3);" \
	     "install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1

.venv/.core: pyproject.toml $(CPU) | $(BIN)/python
	@echo 'installing rnnfarm and its compiled kernels into .venv'
	@$(PIP) --editable . $(call EDITABLE,$(CPU))
	@touch $@

.venv/.dev: pyproject.toml $(PLUGINS) | $(BIN)/python
	@echo 'installing rnnfarm, its plugins and its tools into .venv'
	@$(PIP) --editable '.[test,dev]' $(call COMPILE,$(call EDITABLE,$(PLUGINS)))
	@touch $@ .venv/.core
