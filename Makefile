# Two commands are all that is needed: `make demo` and `make test`. Each makes .venv and installs on its first run.
VENV := .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
INSTALLED := $(VENV)/.installed
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check

.PHONY: setup demo test test-slow lint docs

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the packages of constraints.txt (about 3 minutes)"
	$(PIP) install --quiet -c constraints.txt torch
	$(PIP) install --quiet -c constraints.txt -e '.[all,dev]'
	touch $@

demo: $(INSTALLED)
	$(VENV)/bin/densedpo demo

# several files of tests at once, one thread each: JOBS=1 runs them one after the other
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile

test: $(INSTALLED)
	$(PYTEST)

test-slow: $(INSTALLED)
	$(PYTEST) -m slow

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

docs: $(INSTALLED)
	$(VENV)/bin/python docs/make_cli_page.py > docs/cli.md
