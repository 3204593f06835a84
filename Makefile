# Everything from a fresh clone to a finished run. `make` alone tells what there is.

PYTHON ?= python3
VENV ?= .venv
# auto: a torch >= 2.11 that PYTHON has is used. pinned: constraints.txt rules in any case.
AESG_TORCH ?= auto
SANITIZE ?= none

BIN := $(VENV)/bin
PY := $(BIN)/python
READY := $(VENV)/ready.stamp
TOOLS := $(VENV)/tools.stamp
BUILT := $(VENV)/built.stamp
INSTALLED := $(VENV)/installed.stamp
CXX_FILES := $(shell find csrc tests -name '*.h' -o -name '*.inl' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
CXX_LISTS := $(wildcard csrc/sources.cmake)
CMAKE ?= $(shell command -v cmake || echo $(BIN)/cmake)
CMAKE_DIR := build/cmake-$(SANITIZE)
SANITIZERS_none :=
SANITIZERS_address := address,undefined
SANITIZERS_thread := thread
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test fuzz-packs torture torture-runs build lint lint-ruff lint-format lint-types lint-cpp format test-cpp clean distclean check-python FORCE

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18
	@echo
	@echo '  PYTHON=python3.12  the python to start from; a torch >= 2.11 it has already is used'
	@echo '  DATA=DIR           make demo: train on the text files under DIR'
	@echo '  ARGS="..."         make demo, make test: further arguments of aesg demo, pytest'
	@echo '  SANITIZE=address   make test-cpp: address (with undefined), thread or none'

demo: $(BUILT) $(INSTALLED)  ## train a language model with memory on real text, reopen it, train on
	$(BIN)/aesg demo $(if $(DATA),--data "$(DATA)") $(ARGS)

test: $(BUILT) $(INSTALLED) $(TOOLS)  ## all Python tests
	$(PY) -m pytest $(ARGS)

torture-runs: $(BUILT) $(INSTALLED)  ## kill 1,000 processes that save into a store of runs
	$(PY) -m tests.runs.crash $(or $(ARGS),1000)

build: $(BUILT) $(INSTALLED)  ## the environment in .venv and the extension modules, if anything changed

# The ops with ASan and UBSan, beside a copy of the sources, so that the modules in use stay as they are. The
# sanitizers' libraries must be loaded before python, which was built without them. Python leaks on purpose.
SANITIZED := build/sanitized
EXECUTIONS ?= 10000000
$(SANITIZED)/built.stamp: $(BUILT) $(shell find aesg tests -name '*.py')
	mkdir -p $(SANITIZED)
	cp -a setup.py pyproject.toml README.md csrc tests aesg $(SANITIZED)/
	cd $(SANITIZED) && AESG_CUDA=0 CXXFLAGS="-fsanitize=address,undefined -fno-sanitize=vptr -fno-sanitize-recover=all -fno-omit-frame-pointer" $(abspath $(PY)) setup.py --quiet build_ext --inplace
	@touch $@

fuzz-packs: $(SANITIZED)/built.stamp $(TOOLS)  ## ten million mutated pack files, the ops under sanitizers
	cd $(SANITIZED) && LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libubsan.so) $$(c++ -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0 $(abspath $(PY)) -m tests.packs.mutate --executions $(EXECUTIONS) --seed $(SEED)

lint: lint-ruff lint-format lint-types lint-cpp  ## ruff, mypy and clang-format, changing nothing
lint-ruff: $(TOOLS)
	$(BIN)/ruff check .
lint-format: $(TOOLS)
	$(BIN)/ruff format --check .
lint-types: $(BUILT) $(TOOLS)
	$(BIN)/mypy
lint-cpp: $(TOOLS)
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)

format: $(TOOLS)  ## rewrite the sources as lint wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

test-cpp: $(CMAKE_DIR)/CMakeCache.txt  ## C++ tests, SANITIZE=none|address|thread
	$(CMAKE) --build $(CMAKE_DIR) --parallel $(JOBS)
	CTEST_OUTPUT_ON_FAILURE=1 $(CMAKE) --build $(CMAKE_DIR) --target test

# Counts of the long campaign; docs/store_format.md holds what they printed last.
POWER_CUTS ?= 1000000
KILLS ?= 10000
PYTHON_KILLS ?= 300
FUZZ_RUNS ?= 100000
SEED ?= 1
torture: build/cmake-none/CMakeCache.txt build/cmake-address/CMakeCache.txt build/cmake-thread/CMakeCache.txt $(BUILT) $(INSTALLED) $(TOOLS)  ## the store's long campaign: power cuts, kill -9, fuzzing
	$(CMAKE) --build build/cmake-none --parallel $(JOBS)
	$(CMAKE) --build build/cmake-address --parallel $(JOBS) --target aesg_fuzz
	build/cmake-none/aesg_powercut $(POWER_CUTS) $(SEED)
	build/cmake-none/aesg_torture $(KILLS) $(SEED)
	build/cmake-none/aesg_tests killed failing interrupted full
	AESG_EVERY=1 build/cmake-none/aesg_tests every_changed every_length
	$(CMAKE) --build build/cmake-thread --parallel $(JOBS) --target aesg_tests
	build/cmake-thread/aesg_tests readers
	AESG_KILL_CYCLES=$(PYTHON_KILLS) $(PY) -m pytest -q tests/storage/test_kill.py
	build/cmake-address/aesg_fuzz $(FUZZ_RUNS) $(SEED)
ifneq ($(shell command -v clang++),)
	$(CMAKE) -S . -B build/cmake-fuzz -DCMAKE_CXX_COMPILER=clang++ -DAESG_FUZZ=ON
	$(CMAKE) --build build/cmake-fuzz --parallel $(JOBS) --target aesg_fuzz_store
	build/cmake-fuzz/aesg_fuzz_store -runs=$(FUZZ_RUNS) -seed=$(SEED) -max_len=385
endif

clean:  ## remove what was built, keep the environment
	rm -rf build dist *.egg-info aesg/*.so $(BUILT) $(INSTALLED)
	find aesg tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks

distclean: clean  ## remove the environment too
	rm -rf $(VENV)

# --- how it comes to be ---------------------------------------------------------------------------------------

check-python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("aesg: expected Python >= 3.10, PYTHON=$(PYTHON) is %d.%d (name another: make PYTHON=python3.12)" % sys.version_info[:2])'
# Only a python that was named is compared with the one of the environment: plain `make` goes on with what is there.
ifneq ($(origin PYTHON),file)
	@$(PYTHON) scripts/environment.py check $(VENV)
endif

$(READY): constraints.txt pyproject.toml scripts/environment.py | check-python
	@$(PYTHON) scripts/environment.py create $(VENV) --torch $(AESG_TORCH)
	@touch $@

$(TOOLS): $(READY)
	@$(PY) scripts/environment.py extra $(VENV) dev
	@touch $@

# A module that was removed by hand is built again, whatever the stamp says.
$(BUILT): $(READY) setup.py $(CXX_FILES) $(CXX_LISTS) $(if $(and $(wildcard aesg/_core*.so),$(wildcard aesg/_ops*.so)),,FORCE)
	$(PY) setup.py --quiet build_ext --inplace
	@touch $@

# Editable: the metadata and the aesg command. The modules stand beside the sources already.
$(INSTALLED): $(READY) setup.py | $(BUILT)
	@$(PY) -m pip --disable-pip-version-check install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

$(BIN)/cmake: $(READY)
	@$(PY) -m pip --disable-pip-version-check install --quiet --constraint $(VENV)/constraints.txt cmake

build/cmake-%/CMakeCache.txt: CMakeLists.txt $(CXX_LISTS) | $(CMAKE)
	$(CMAKE) -S . -B build/cmake-$* "-DAESG_SANITIZE=$(SANITIZERS_$*)"

FORCE:
