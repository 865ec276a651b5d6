# Each target does all the set-up that it needs and costs next to nothing once that is done:
# Debian packages (as root, by apt) and a virtual environment in .venv.

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench torture clean constraints debian-packages-demo debian-packages-test debian-packages-bench venv

PYTEST_FLAGS ?= -q
# conftest.py says which tests stay together.
PYTEST_WORKERS ?= --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Container images like to set it, and then each of the thousand processes that the tests start compiles
# everything anew.
unexport PYTHONDONTWRITEBYTECODE

help:
	@echo 'make demo    build an image out of a directory, mount it lazily, show what was fetched'
	@echo 'make test    check style and types, then run every test'
	@echo 'make lint    check style, types and who may import whom'
	@echo 'make bench   measure lazylayer beside references; BENCH_FLAGS=--help explains'
	@echo 'make torture  try faults, fuzzing and kills by the thousand; TORTURE=--help explains'
	@echo 'make clean   remove what these made'

demo: debian-packages-demo venv
	@.venv/bin/python scripts/demo

test: debian-packages-test lint
	.venv/bin/python -m pytest $(PYTEST_WORKERS) $(PYTEST_FLAGS)

lint: venv
	@scripts/lint

bench: debian-packages-bench venv
	@.venv/bin/python bench/run.py $(BENCH_FLAGS)

torture: debian-packages-test venv
	@PYTHONPATH=$(CURDIR)/tests:$(CURDIR)/tests/torture/counting .venv/bin/python -m torture $(TORTURE)

# Take the newest versions that the requirements allow, and write them down for everybody else.
constraints: debian-packages-demo
	@scripts/setup-venv --newest

debian-packages-demo debian-packages-test debian-packages-bench: debian-packages-%:
	@scripts/debian-packages $*

# The packages come first: a bare Debian has no `python3 -m venv`.
venv: | debian-packages-demo
	@scripts/setup-venv

clean:
	rm -rf build .venv .mypy_cache .ruff_cache .hypothesis .benchmarks .import_linter_cache uv.lock
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
