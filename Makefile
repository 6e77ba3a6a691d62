# Each target makes or reuses a virtual environment of its own (.venv). What it needs of the system it installs when
# it runs as root with apt; else it says what to install.
#
#   make demo    the example notebook, executed: a table, and build/quickstart.html
#   make test    lint, then all tests but those marked slow; with a fixed share of torch's op database
#   make test-torch    the contract's tests with another torch, TORCH=2.14.1, in an environment of its own below build/;
#                TESTS=tests/semantics/test_same_rows.py for some of them, PYTHON=python3.12 for another Python
#   make wheel   dist/*.whl, with a compiled walker for each of TORCHES="2.13.0 2.14.1 2.15.0"
#   make test-wheel    it is installed where there is no compiler, and the README's example run in a notebook
#   make docs    build/site: pages, reference, and the notebooks of examples/ as they come out when they are run
#   make conformance    all of torch's op database against eager, two hours on two cores: a table in build/conformance.txt;
#                with SAMPLES=2 of each op, dtype and form, four minutes
#   make fuzz    random programs against eager, MINUTES=5 or PROGRAMS=20000 of them: what differs as runnable code, and
#                what was covered
#   make bench   all benchmarks, or SUITE=chains, recording, rows, programs, models, memory or cells: tables, and build/bench.json;
#                whole programs under torch.compile too with PEERS=compile
#   make bench-check    two runs of them compared, OLD=a.json NEW=b.json: fails if anything became slower
#   make sanitize    the walker compiled with sanitizers, SANITIZER=address (and undefined behaviour, a quarter of an
#                hour) or thread, and the tests run that exercise it
#   make lint    ruff, mypy, clang-format, clang's warnings
#   make walker  the C++ file compiled ahead of its first use

.DELETE_ON_ERROR:
.PHONY: demo test test-torch wheel test-wheel docs tools walker lint bench bench-check conformance fuzz sanitize

export PYTHON
# Bytecode is kept even where the environment says otherwise: thousands of processes import the same files.
export PYTHONDONTWRITEBYTECODE :=
BIN := .venv/bin
READY := .venv/.ready
MINUTES := 5
PROGRAMS :=
SAMPLES :=
SUITE :=
TORCH :=
TESTS := tests/semantics
OTHERS = build/torch-$(or $(notdir $(PYTHON)),python3)
TORCHES := 2.13.0 2.14.1 2.15.0
SANITIZER := address thread
CPP = $(shell find torchy -name '*.cpp' -o -name '*.h')

demo: $(READY)
	@.ci/need g++
	$(BIN)/python -m examples.run_demo

# What leaves a core idle runs side by side: pip and apt, then lint and the compiler. Only one of them may call apt.
test:
	@.ci/need python g++ clang >/dev/null
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target tools lint walker
	$(BIN)/python -m pytest -m "not slow"

test-torch:
	@test -n "$(TORCH)" || { echo "make test-torch TORCH=2.14.1: name a version of torch" >&2; exit 2; }
	@.ci/need g++
	@$(MAKE) --no-print-directory $(OTHERS)/$(TORCH)/.ready
	$(OTHERS)/$(TORCH)/bin/python -m torchy report
	$(OTHERS)/$(TORCH)/bin/python -m pytest -m "not slow" $(TESTS)

# An environment with another torch.
$(OTHERS)/%/.ready: pyproject.toml constraints.txt
	@python=$$(.ci/need python) && { test -x $(@D)/bin/python || "$$python" -m venv $(@D); }
	grep -v '^torch==' constraints.txt > $(@D)/constraints.txt
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint $(@D)/constraints.txt 'torch==$*' --editable '.[test]'
	@touch $@

# hatch_build.py takes the walkers from there.
wheel: $(READY) $(TORCHES:%=$(OTHERS)/%/.ready)
	@.ci/need g++
	rm -rf build/bundled dist
	for torch in $(TORCHES); do \
		$(OTHERS)/$$torch/bin/python -m torchy build --bundle build/bundled || exit; done
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	rm -rf build/bundled
	@du -h dist/*.whl

# As somebody finds it who has no compiler, and has run nothing yet.
test-wheel: wheel
	@python=$$(.ci/need python) && rm -rf build/wheel && "$$python" -m venv build/wheel
	build/wheel/bin/python -m pip install --quiet --disable-pip-version-check \
		'torch==$(firstword $(TORCHES))' nbclient ipykernel numpy dist/*.whl
	build/wheel/bin/python .ci/try_readme.py

# Pages, then the notebooks as they come out when they are run, beside the page that names them.
docs: $(READY)
	@.ci/need g++
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	$(BIN)/python -m examples.pages build/site/notebooks
	@echo build/site/index.html

tools:
	@.ci/need dot chromium

walker: $(READY)
	@.ci/need g++
	$(BIN)/python -m torchy build

conformance: $(READY)
	@.ci/need g++
	$(BIN)/python tests/conformance $(if $(SAMPLES),--samples $(SAMPLES))

fuzz: $(READY)
	@.ci/need g++
	$(BIN)/python tests/fuzz $(if $(PROGRAMS),--programs $(PROGRAMS),--minutes $(MINUTES))

sanitize: $(READY)
	@.ci/need g++
	$(BIN)/python tests/sanitize $(SANITIZER)

bench: $(READY)
	@.ci/need g++ headers
	$(BIN)/python -m benchmarks $(if $(SUITE),--suite $(SUITE)) $(if $(PEERS),--peers $(PEERS))

bench-check: $(READY)
	$(BIN)/python -m benchmarks.check $(OLD) $(NEW)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(if $(CPP),$(BIN)/clang-format --dry-run --Werror $(CPP))
	@.ci/need clang
	$(BIN)/python .ci/check_walker.py

# Anew whenever one of the two files changes.
$(READY): pyproject.toml constraints.txt
	@python=$$(.ci/need python) && { test -x $(BIN)/python || "$$python" -m venv .venv; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
		--constraint constraints.txt --editable '.[test,demo,bench,lint]'
	@# On all cores; pip would use one. Like pip, it passes over files that are for other Pythons.
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib >/dev/null || true
	@touch $(READY)
