# Each target sets up what it needs; a second run costs nothing.
#
#   PYTHON=python3.12   the interpreter that a new environment is made from (3.11 or newer)
#   VENV=folder         the environment
#   PROFILE=standard    the profile of `bench`, `report` and `cost`
#   WORKERS=8           processes that share the files of `test`
#   ARGS="..."          further arguments of `bench` (which then leaves out the costs), `report`, `smoke`, `test`, `fuzz`,
#                       `cost`, `gate` and `micro`
# pip takes its own settings from the environment (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS ...): a machine
# without a GPU downloads less from an index with CPU builds of torch.

PYTHON ?= python3
VENV ?= .venv
PROFILE ?= quick
WORKERS ?= 2
ARGS ?=

run_python := $(VENV)/bin/python
pip_install := $(run_python) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
installed := $(VENV)/.metabench-installed
peers := $(VENV)/.metabench-peers
# Next to the environment, not in it: until the first installation is complete this file says that the environment was
# made here and may be incomplete.
unfinished := $(VENV).unfinished

# Failed cells (exit code 1) are shown on the page; a mistake of the user (2) ends here.
define run_and_report
@status=0; $(run_python) -m benchmarks run --profile $(1) $(if $(2),,--page reports/index.html) $(ARGS) || status=$$?; \
if [ $$status -le 1 ] && [ -n "$(3)" ]; then $(run_python) -m benchmarks cost --profile $(1) || exit $$?; fi; \
if [ $$status -le 1 ]; then $(run_python) -m benchmarks report --profile $(1) $(2) || status=$$?; fi; exit $$status
endef

# Libraries that the cost benchmark compares with; without their dependencies, since one of them asks for any torch.
define with_peer
@$(pip_install) --no-deps $(2) >$(VENV)/peers-$(1).log 2>&1 || echo "$(1) could not be installed and is left out of comparisons ($(VENV)/peers-$(1).log)"
endef

.DEFAULT_GOAL := help
.PHONY: help install bench ablation report readme paper-gpu smoke test fuzz check cost cost-gpu gate micro peers clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(installed) ## make the environment .venv and install everything into it

bench: $(installed) ## run the benchmark (PROFILE=quick), then write reports/index.html
	$(call run_and_report,$(PROFILE),,$(if $(ARGS),,$(filter quick standard,$(PROFILE))))

# One run for each row of the table, all in one store. Plain MAML has the steps, rate and batches of MAML++.
switches := multi_step_loss=0.0 per_step_norm=False learned_rates=False "first_order=0.0 last_lr=0.0"
ablate = $(run_python) -m benchmarks run --profile ablation --threads 1 $(ARGS)
ablation: $(installed) ## MAML++ on Omniglot without each of its changes (20 CPU minutes)
	$(ablate) -m maml-plus-plus
	for off in $(switches); do $(ablate) -m maml-plus-plus $$(printf -- '--set maml-plus-plus.%s ' $$off) || exit $$?; done
	$(ablate) -m maml $(addprefix --set maml.,inner_lr=0.1 inner_steps=5 test_steps=5, meta_batch=8 loss_scale=mean)
	$(run_python) -m benchmarks show --profile ablation

report: $(installed) ## write reports/index.html from the records, without training
	$(run_python) -m benchmarks report --profile $(PROFILE) $(ARGS)

readme: $(installed) ## write the committed page and the tables of README.md and docs/ from reports/reference
	$(run_python) -m benchmarks report $(foreach records,$(sort $(wildcard reports/reference/*/records)),--store $(dir $(records:/=))) \
	  --output reports/reference/index.html
	$(run_python) -m reports.readme
	$(run_python) -m reports.cost.docs

# On a machine with a GPU, with its own Python and nothing installed: published settings and budgets of three learners on
# Omniglot, for at most SECONDS; the same command resumes. METABENCH_CACHE may name decoded images.
SECONDS ?= 520
paper-gpu: ## Omniglot with published settings on a GPU, in pieces (PYTHON=)
	timeout --signal=INT --kill-after=20 $(SECONDS) $(PYTHON) -m benchmarks run --profile paper -t omniglot/5w1s \
		-m maml -m fomaml -m matching-nets --seeds 1 --device cuda --jobs 3 --store reports/reference/paper-omniglot; \
		code=$$?; if [ $$code -eq 124 ]; then echo "stopped after $(SECONDS) s; run the same command again to resume"; else exit $$code; fi

smoke: $(installed) ## 37 methods on two small tasks, and their page; scores mean nothing
	$(call run_and_report,smoke,--output reports/runs/smoke.html)

test: $(installed) $(peers) ## the tests
	$(run_python) -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

fuzz: $(installed) ## 1,000 damaged files, 200 odd command lines, 30 kills (minutes)
	$(run_python) -m pytest tests/fuzz -m "fuzz or not fuzz" $(ARGS)

check: $(installed) ## format, lint and types
	$(run_python) -m ruff format --check .
	$(run_python) -m ruff check .
	$(run_python) -m mypy

# `bench` runs it too, against the libraries that are installed; `make peers` installs the others.
cost: $(installed) ## what second order costs against first (PROFILE=quick: minutes)
	$(run_python) -m benchmarks cost --profile $(PROFILE) $(ARGS)

# The most important settings come first; the same command goes on with the others.
COST_SECONDS ?= 450
cost-gpu: ## the same on a GPU with what PYTHON has, in under 8 minutes
	$(PYTHON) -m benchmarks cost --profile standard --device cuda --seconds $(COST_SECONDS) $(ARGS)

gate: $(installed) ## is this slower or worse than METABENCH_GATE_BASE, else HEAD~1?
	$(run_python) -m benchmarks gate $(ARGS)

micro: $(installed) ## where time goes: inner step, meta-step, episodes, records
	$(run_python) -m pytest tests/micro -o addopts=--import-mode=importlib --benchmark-only $(ARGS)

peers: $(installed) ## install the libraries to compare with; tries again what failed
	@grep -qs '^installed' $(peers) || rm -f $(peers)
	@$(MAKE) --no-print-directory $(peers)
	$(call with_peer,higher,higher==0.2.1)
	$(call with_peer,torchopt,torchopt==0.7.3 optree graphviz)
	$(call with_peer,jax,jax==0.10.2 jaxlib==0.10.2 ml_dtypes opt_einsum)

clean: ## remove the environment and caches; reports/runs stays
	rm -rf $(VENV) $(unfinished) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that was there before is installed into, never cleared. torch comes first, so that a package which asks
# for any torch finds the pinned one.
$(installed): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("metabench needs Python 3.11 or newer (make PYTHON=...); this is " + sys.version.split()[0])'
	@rm -f $@
	@if [ -e $(unfinished) ] || [ ! -e $(VENV) ]; then \
		echo "making $(VENV)" && touch $(unfinished) && $(PYTHON) -m venv --clear $(VENV); \
	fi
	@echo "installing into $(VENV) (minutes, the first time)"
	@$(pip_install) torch
	@$(pip_install) --editable '.[dev]'
	@touch $@ && rm -f $(unfinished)

# learn2learn's source release builds only where its Cython step is asked for, and asks for packages that it doesn't
# need and for any torchvision, which would bring another torch along.
$(peers): $(installed)
	@{ $(pip_install) --no-deps --config-settings="--build-option=build_ext" learn2learn==0.2.0 && \
	$(pip_install) --no-deps "torchvision==0.16.2; python_version < '3.12'" "torchvision==0.28.0; python_version >= '3.12'" && \
	$(pip_install) gym==0.26.2 requests tqdm scipy pillow; } >$(VENV)/peers.log 2>&1 \
	&& echo "installed" >$@ \
	|| { echo "missing" >$@; echo "learn2learn could not be installed and is left out of comparisons ($(VENV)/peers.log; again: make peers)"; }
