# Three commands do everything on a fresh machine: `make app`, `make reproduce` and `make test`.
# The first call of either makes an environment in $(VENV), from requirements.lock.

PRESET  ?= laptop
VENV    ?= .venv
WORKERS ?= 2
KILLS   ?= 20
CASES   ?= 20000
OUT     ?= outputs/notebooks/$(PRESET)-da-seed0

# The book shows NOTEBOOKS, executed copies; by default they are made at PRESET, or at smoke where none is given.
BOOK_VENV   ?= .venv-book
BOOK_PRESET := $(if $(filter file,$(origin PRESET)),smoke,$(PRESET))
NOTEBOOKS   ?= outputs/notebooks/$(BOOK_PRESET)-da-seed0

python    := $(VENV)/bin/python
installed := $(VENV)/.installed
fuzzer    := $(VENV)/fuzz
book_installed := $(BOOK_VENV)/.installed
book_work := outputs/book-work
notebooks := $(wildcard notebooks/*.ipynb davae/photo/app/*.ipynb)

# The first of these that runs, is Python 3.11 or 3.12 and has venv: a name on the path is no proof of that.
# 3.11 comes first because requirements.lock was made with it.
PYTHONS ?= python3.11 python3.12 python3 python
find_python = for name in $(PYTHONS); do \
	"$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in [(3, 11), (3, 12)])' \
	>/dev/null 2>&1 && echo "$$name" && break; done

# pip's own variables pass through: PIP_EXTRA_INDEX_URL names a further package index, PIP_FIND_LINKS a folder.
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# Images of containers set it to save room. What is installed uncompiled (see below) would then be compiled anew
# by every process: importing torch, papermill and Open3D takes 12 s instead of 6.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install reproduce app test drill visitors bench lint format notebooks book lock lockbook audit clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile
	@echo "Variables: PRESET=smoke|laptop|sweep|gpu|paper (now $(PRESET)), VENV (now $(VENV)), OUT (now $(OUT)), WORKERS of tests (now $(WORKERS)), WEIGHTS and PORT of app, NOTEBOOKS of book"

install: $(installed) ## make the environment (the other commands do so by themselves)

reproduce: $(installed) ## render, prepare, train, evaluate and run every notebook at PRESET
	$(python) -m davae reproduce --preset $(PRESET)

app: $(installed) ## open the web app: your own photo, and sliders on the latent space
	$(python) -m davae app $(if $(WEIGHTS),--weights $(WEIGHTS)) $(if $(PORT),--port $(PORT))

test: lint $(fuzzer)/.installed ## lint, then all tests, every notebook at smoke among them
	$(python) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

drill: $(installed) $(fuzzer)/.installed ## kill (KILLS=20), starve and damage every command, give readers damaged files (CASES=20000, and as many of a fuzzer)
	PYTHONPATH=tests:$(fuzzer) $(python) -m drill --kills $(KILLS) --cases $(CASES) --seed $(or $(SEED),0) $(if $(ONLY),--only $(ONLY)) $(if $(FAULT),--fault $(FAULT)) $(if $(CASE),--case $(CASE))

visitors: $(installed) ## let 20 visitors in turn, then 5 at once, use the app: failures, waiting times, memory
	PYTHONPATH=tests $(python) -m drill.visitors

bench: $(installed) ## measure speed and memory against the machine's limits and plain code: 28 minutes
	$(python) benchmarks/suite.py

lint: $(installed) ## check style, format, types and that notebooks carry no output
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy
	$(if $(notebooks),$(python) -m nbstripout --keep-id --verify $(notebooks))

format: $(installed) ## mend what lint complains of, as far as a machine can
	$(python) -m ruff check --fix .
	$(python) -m ruff format .
	$(if $(notebooks),$(python) -m nbstripout --keep-id $(notebooks))

notebooks: $(installed) ## run every notebook at PRESET, executed copies to OUT
	$(python) -m davae notebooks --preset $(PRESET) --out $(OUT)

book: $(installed) $(book_installed) $(if $(filter file,$(origin NOTEBOOKS)),$(NOTEBOOKS)/.executed) ## notebooks, docs and reference as one site for any browser, to outputs/book
	rm -rf $(book_work)
	$(python) docs/book/record.py --out $(book_work)/parts
	$(python) docs/book/stage.py --notebooks $(NOTEBOOKS) --parts $(book_work)/parts --out $(book_work)/source
	$(BOOK_VENV)/bin/python -m sphinx --quiet --fail-on-warning --keep-going -c docs/book -d $(book_work)/doctrees $(book_work)/source $(book_work)/site
	$(python) docs/book/check.py $(book_work)/site
	rm -rf outputs/book && mv $(book_work)/site outputs/book
	@echo "Open outputs/book/index.html in a browser, or copy outputs/book to any web server."

# Made again when a notebook or a module has changed.
$(NOTEBOOKS)/.executed: $(wildcard notebooks/*.ipynb) $(shell find davae synthhand -name '*.py') | $(installed)
	$(python) -m davae notebooks --preset $(BOOK_PRESET) --out $(NOTEBOOKS)
	@touch $@

# What makes pages is apart from what the tests run with: requirements.lock stays the tested set.
$(book_installed): docs/book/requirements.lock $(installed)
	@echo "Installing about 75 packages into $(BOOK_VENV): once, under a minute ..."; \
	$(python) -m venv $(BOOK_VENV)
	@$(BOOK_VENV)/bin/python -m pip install --quiet --no-compile -r docs/book/requirements.lock
	@touch $(book_installed)

# What audits is apart from what is audited. It is no test: it needs the network, and its answer changes by the day.
audit: .venv-audit/.installed ## ask PyPI for advisories on the pinned packages; needs the network
	.venv-audit/bin/python .ci/audit.py requirements.lock docs/book/requirements.lock

.venv-audit/.installed: .ci/audit.lock $(installed)
	@$(python) -m venv .venv-audit
	@.venv-audit/bin/python -m pip install --quiet --no-compile -r .ci/audit.lock
	@touch $@

# The fuzzer is apart, too: there are wheels of it for some platforms only. Drill and tests go on without it.
$(fuzzer)/.installed: .ci/fuzz.lock $(installed)
	@rm -rf $(fuzzer) && mkdir $(fuzzer)
	@if $(python) -m pip install --quiet --no-compile --only-binary :all: --target $(fuzzer) -r $<; then touch $@; \
	else echo "make: no fuzzer; drill and tests go on without it." >&2; fi

clean: ## remove the environment and caches; outputs/ and data/ stay
	rm -rf $(VENV) $(BOOK_VENV) .venv-audit .pytest_cache .ruff_cache .hypothesis *.egg-info
	find davae synthhand tests benchmarks notebooks -name __pycache__ -type d -prune -exec rm -rf {} +

# Modules are byte-compiled when first imported: compiling all of them at once takes longer than installing.
# The package itself is linked, not copied, with the setuptools of the lock.
$(installed): requirements.lock pyproject.toml
	@base=$$($(find_python)); \
	if [ -z "$$base" ]; then \
		echo "make: none of '$(PYTHONS)' is a Python 3.11 or 3.12 that has venv and ensurepip." >&2; \
		echo "Install one (Debian and Ubuntu: python3.12-venv), or name it: make $(MAKECMDGOALS) PYTHONS=/path/to/python" >&2; \
		exit 1; \
	fi; \
	echo "Installing about 190 packages into $(VENV), with $$("$$base" --version): once, one or two minutes ..."; \
	"$$base" -m venv $(VENV)
	@$(python) -m pip install --quiet --no-compile -r requirements.lock
	@$(python) -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $(installed)

# Versions are chosen anew from the ranges of pyproject.toml, in an environment of its own. Written down are
# plain versions only: no build of torch, none of the CUDA packages that some of its wheels bring, no index.
lock: ## choose the versions in requirements.lock anew
	@base=$$($(find_python)); fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; set -e; \
	echo "Choosing versions with $$("$$base" --version): a few minutes ..."; \
	"$$base" -m venv "$$fresh"; \
	"$$fresh/bin/python" -m pip install --quiet --no-compile -e '.[tests]'; \
	"$$fresh/bin/python" -m pip freeze --all --exclude pip --exclude-editable > "$$fresh/freeze"; \
	awk 'BEGIN { print "# Everything the tests run with on Linux, pinned. Written by `make lock`; do not edit."; \
	             print "# What only another platform or Python needs besides (appnope on macOS, say) pip adds by itself."; \
	             cpu = "sys_platform == \"linux\" and platform_machine == \"x86_64\""; \
	             other = "sys_platform != \"linux\" or platform_machine != \"x86_64\"" } \
	     /^(nvidia|cuda)-|^triton==/ { next } \
	     /^torch==/ { sub(/\+.*/, "") } \
	     /^open3d(-cpu)?==/ { sub(/^.*==/, ""); print "open3d-cpu==" $$0 "; " cpu; print "open3d==" $$0 "; " other; next } \
	     { print }' "$$fresh/freeze" > requirements.lock.new; \
	mv requirements.lock.new requirements.lock; echo "requirements.lock: $$(grep -c == requirements.lock) packages"

# As above, of what pyproject.toml lists under book.
lockbook:
	@base=$$($(find_python)); fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; set -e; \
	"$$base" -m venv "$$fresh"; \
	"$$base" -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["book"], sep="\n")' > "$$fresh/wanted"; \
	"$$fresh/bin/python" -m pip install --quiet --no-compile -r "$$fresh/wanted"; \
	{ echo "# Everything that makes the book from executed notebooks, pinned. Written by \`make lockbook\`; do not edit."; \
	  "$$fresh/bin/python" -m pip freeze --exclude pip; } > docs/book/requirements.lock.new; \
	mv docs/book/requirements.lock.new docs/book/requirements.lock; echo "docs/book/requirements.lock: $$(grep -c == docs/book/requirements.lock) packages"
