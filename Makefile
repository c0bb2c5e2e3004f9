# Everything is done in a virtual environment; `make VENV=path TARGET` picks another one.
VENV ?= .venv
PYTHON ?= python3
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := $(VENV)/bin
READY := $(VENV)/.alpacafarm-ready

# OVERRIDES are KEY=VALUE for every run; the others are of reproduce-table2: ROWS some of its rows, JOBS runs
# at the same time.
SCALE ?= world
SEEDS ?= 1,2,3
DRY ?=
ROWS ?=
JOBS ?=
OVERRIDES ?=

.PHONY: help install quickstart reproduce-table2 overoptimisation test check format lint types bench wheel clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

install: $(READY) ## create the environment and install

$(READY): pyproject.toml constraints.txt
	test -x "$(BIN)/python" || $(PYTHON) -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch "$(READY)"

quickstart: $(READY) ## PPO on simulated feedback in the embedded world: no key, no GPU, no network
	"$(BIN)/python" -m alpacafarm.run method=ppo feedback=sim kl_coef=0.0067

reproduce-table2: $(READY) ## the paper's Table 2; SEEDS=1,2,3 SCALE=world|7b DRY=1 (plan and cost only)
	"$(BIN)/python" -m alpacafarm.table2 --scale "$(SCALE)" --seeds "$(SEEDS)" \
		$(if $(filter-out 0,$(DRY)),--dry) $(if $(ROWS),--rows "$(ROWS)") $(if $(JOBS),--jobs "$(JOBS)") $(OVERRIDES)

overoptimisation: $(READY) ## win rates against proxy reward and KL: PPO over steps, best-of-n over n
	"$(BIN)/python" -m alpacafarm.run -m recipe=overoptimisation hydra.sweep.dir=overoptimisation/ppo $(OVERRIDES)
	"$(BIN)/python" -m alpacafarm.run -m recipe=overoptimisation_best_of_n \
		hydra.sweep.dir=overoptimisation/best_of_n $(OVERRIDES)
	"$(BIN)/python" -m alpacafarm.compare overoptimisation --out overoptimisation --name overoptimisation

# One process for each core, each with one thread: small tensors gain nothing from a second one.
test: export OMP_NUM_THREADS = 1
test: $(READY) ## the whole test suite
	"$(BIN)/python" -m pytest -q -n auto --dist loadfile

check: format-check lint types test ## what CI runs

format-check: $(READY)
	"$(BIN)/ruff" format --check .

format: $(READY) ## format the code
	"$(BIN)/ruff" format .
	"$(BIN)/ruff" check --fix .

lint: $(READY) ## ruff
	"$(BIN)/ruff" check .

types: $(READY) ## mypy, strict
	"$(BIN)/mypy"

bench: $(READY) ## measure; writes bench/*.json and prints ratios
	"$(BIN)/python" -m tests.bench

wheel: $(READY) ## build a wheel into dist/
	"$(BIN)/python" -m pip wheel --quiet --no-deps -w dist .

clean: ## remove the environment and build outputs; stores and runs stay
	rm -rf "$(VENV)" dist build
