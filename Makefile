# Everything is set up from nothing: `make demo` runs the main job, `make test` all checks.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
VST3_SDK ?= /usr/share/juce/modules/juce_audio_processors/format_types/VST3_SDK
INPUTS := pyproject.toml CMakeLists.txt requirements.lock

.PHONY: setup demo test lint unit probe bench fuzz lock clean

setup: $(VENV)/ready

# A bare Debian machine has Python without venv. The lock keeps CI and developers on the same versions.
$(VENV)/ready: $(INPUTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "StemPlug needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ $(SUDO) apt-get update -q && $(SUDO) apt-get install -qy python3-venv; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[test]'
	@touch $@

# Separates SONG=path, or the example song in the package stempeg, and tells how good the result is.
demo: setup
	$(BIN)/python examples/demo.py $(if $(SONG),"$(SONG)")

test: lint unit

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup probe
	$(BIN)/python -m pytest

# VST3 plugins with a known latency (tests/probe). Where there is no compiler or no VST3 SDK to be had, the tests that
# need them are left out, and say so.
probe: setup
	@test -d $(VST3_SDK) || { $(SUDO) apt-get update -q && \
		$(SUDO) apt-get install -qy --no-install-recommends juce-modules-source-data; } || true
	@export PATH="$(CURDIR)/$(BIN):$$PATH"; \
		cmake -S tests/probe -B build/probe -G Ninja -DVST3_SDK_DIR=$(VST3_SDK) >/dev/null && \
		cmake --build build/probe || echo "the test plugins were not built: tests that need them are left out"

bench: setup
	$(BIN)/stemplug bench
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/chain.py
	$(BIN)/python benchmarks/live.py

# Broken audio files by the thousand; the unit tests run a short form.
fuzz: setup
	STEMPLUG_FUZZ=6000 $(BIN)/python -m pytest tests/audio/test_fuzz.py --timeout 3000

# Take the newest versions of all dependencies.
lock:
	rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	$(BIN)/python -m pip freeze --exclude-editable > requirements.lock
	touch $(VENV)/ready

clean:
	rm -rf $(VENV) build dist
