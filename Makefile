# `make` lists the targets. Everything runs in .venv, whatever other environment is activated.

PROFILE ?= standard
PYTHON ?=
ARGS ?=
TORCH ?=
BIN := $(CURDIR)/.venv/bin
STAMP := .venv/lensdiff.stamp
PYTHONS := $(or $(PYTHON),python3.13 python3.12 python3.11 python3)
CPU_INDEX := https://download.pytorch.org/whl/cpu
USABLE := import ensurepip, sys; sys.exit(sys.version_info < (3, 11))

# One environment for every command: the programs, the packages and the Jupyter kernel of .venv and no others.
ENV := env -u PYTHONHOME -u PYTHONPATH -u CONDA_PREFIX VIRTUAL_ENV="$(CURDIR)/.venv" PATH="$(BIN):$$PATH" \
	JUPYTER_PATH="$(CURDIR)/.venv/share/jupyter" JUPYTER_PREFER_ENV_PATH=1
PY := $(ENV) "$(BIN)/python"
SMOKE := env LENSDIFF_PROFILE=smoke LENSDIFF_QUIET=1

# Processes of one thread each: two torch programs that share threads slow each other tenfold.
SHARED := env OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
# Three for the tests: one of them mostly waits for its browser.
THREE := -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: help run test test-gpu benchmark lab notebooks figures site clean setup

help:
	@echo "make run        execute every notebook into runs/$(PROFILE)/ (PROFILE=smoke, standard or full)"
	@echo "make test       ruff, the tests, and every notebook at profile smoke"
	@echo "make test-gpu   the tests and notebooks that use a CUDA device, on one; without one it says so"
	@echo "make benchmark  measure lensdiff beside other libraries; what is stored already is left as it is"
	@echo "make lab        open the notebooks in JupyterLab"
	@echo "make notebooks  execute the committed notebooks again, in place, and strip what GitHub can't render"
	@echo "make figures    draw the drawings of figures/drawings again"
	@echo "make site       build the series as a site into runs/site/html, to be read without a network"
	@echo "make clean      delete runs/, with all models and states trained there, and caches; .venv and data/cache stay"
	@echo "Each makes .venv first if there is none. PYTHON=... chooses the interpreter for it (3.11 or newer)."
	@echo "TORCH=cpu then installs torch without its libraries for CUDA, from $(CPU_INDEX)"
	@echo 'ARGS=... goes to python -m lensdiff notebooks or JupyterLab, e.g. make run ARGS="--only 03"'

run: setup
	@$(PY) -m lensdiff notebooks --profile $(PROFILE) $(ARGS)

test: setup
	@echo; echo "==== 1 of 3: ruff"
	@$(PY) -m ruff check .
	@echo; echo "==== 2 of 3: unit and oracle tests"
	@$(SHARED) LENSDIFF_QUIET=1 $(PY) -m pytest -q $(THREE)
	@echo; echo "==== 3 of 3: every notebook at profile smoke, by pytest --nbval-lax and beside it in their chain by papermill"
	@$(MAKE) -j2 --no-print-directory pages-by-nbval pages-by-papermill
	@echo; echo "==== all passed"

.PHONY: pages-by-nbval pages-by-papermill  # beside each other, as the last step of test

pages-by-nbval:
	@rm -rf runs/nbval && mkdir -p runs/nbval
	@$(SHARED) $(SMOKE) LENSDIFF_RUNS="$(CURDIR)/runs/nbval" $(PY) -m pytest -q \
		--nbval-lax --nbval-current-env notebooks/ >runs/nbval/log.txt 2>&1; \
	code=$$?; echo; echo "== pytest --nbval-lax:"; cat runs/nbval/log.txt; exit $$code

pages-by-papermill:
	@$(SHARED) $(PY) -m lensdiff notebooks --profile smoke --force

test-gpu: setup
	@$(PY) -c "import sys, torch; sys.exit(not torch.cuda.is_available())" || \
		{ echo "There is no CUDA device here: make test runs all that needs none." >&2; exit 1; }
	@echo; echo "==== 1 of 3: the tests marked gpu"
	@LENSDIFF_QUIET=1 $(PY) -m pytest -q -m gpu
	@echo; echo "==== 2 of 3: every notebook by pytest --nbval-lax on this device, profile smoke"
	@rm -rf runs/nbval-gpu && mkdir -p runs/nbval-gpu
	@$(SMOKE) LENSDIFF_RUNS="$(CURDIR)/runs/nbval-gpu" $(PY) -m pytest -q --nbval-lax --nbval-current-env notebooks/
	@echo; echo "==== 3 of 3: the chain of notebooks by papermill, profile standard"
	@$(PY) -m lensdiff notebooks --profile standard --force
	@echo; echo "==== all passed"

benchmark: setup
	@$(PY) -m lensdiff study benchmark $(or $(ARGS),all)
	@[ -n "$(ARGS)" ] || echo "Our own of equal minutes, about 40 minutes for each of three that is not stored:"
	@[ -n "$(ARGS)" ] || $(PY) -m lensdiff study recipes ours ours-observed ours-balanced

lab: setup
	@$(PY) -m jupyterlab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks/00_quickstart.ipynb $(ARGS)

notebooks: setup
	@$(PY) -m lensdiff notebooks --profile standard --in-place --record $(ARGS)

figures: setup
	@$(PY) -m lensdiff study drawings $(ARGS)

site: setup
	@$(PY) docs/build.py $(ARGS)

clean:
	rm -rf runs .pytest_cache .ruff_cache *.egg-info
	find lensdiff tests notebooks '(' -name __pycache__ -o -name .ipynb_checkpoints ')' -prune -exec rm -rf {} +

setup:
ifneq ($(filter-out cpu,$(TORCH)),)
	@echo "TORCH is '$(TORCH)'. Set it to cpu, or leave it out." >&2; exit 1
endif
	@[ -z "$(TORCH)" ] || [ ! -e $(STAMP) ] || \
		echo "== .venv is there already, and stays as it is: delete it for another torch"
	@mkdir -p runs
	@[ -x .venv/bin/python ] || rm -f $(STAMP)
	@$(MAKE) --silent --no-print-directory $(STAMP)

$(STAMP): pyproject.toml constraints.txt | .venv/bin/python
	@echo "== installing into .venv what pyproject.toml asks for; the first time this takes a few minutes"
ifeq ($(TORCH),cpu)
	@$(PY) -m pip install --disable-pip-version-check -c constraints.txt --no-deps -i $(CPU_INDEX) torch torchvision || \
		{ echo "torch for CPUs can't be had from $(CPU_INDEX). Leave TORCH=cpu out: the build with CUDA runs on CPUs too." >&2; exit 1; }
endif
	@$(PY) -m pip install --disable-pip-version-check -c constraints.txt -e ".[test]"
	@touch $@

.venv/bin/python:
	@for python in $(PYTHONS); do \
		if $$python -c '$(USABLE)' 2>/dev/null; then \
			echo "== making .venv with $$($$python --version)"; \
			exec $$python -m venv --clear .venv; \
		fi; \
	done; \
	echo "lensdiff needs Python 3.11 or newer with its venv module; none of these is: $(PYTHONS)." >&2; \
	echo "Install one (Debian or Ubuntu: apt-get install python3.11 python3.11-venv) or name it: make PYTHON=/path/to/python3.11" >&2; \
	exit 1
