PYTHON ?= python3
BIN := .venv/bin

.PHONY: help test test-slow lint demo paper-smoke benchmark clean

help: .venv/ready        # sees to .venv, as every target does, and prints this list
	@awk -F ':.*# ' '/^[a-z-]+:.*# / {printf "make %-14s%s\n", $$1, $$2}' Makefile

test: .venv/ready        # the whole suite on the CPU, a few minutes on two cores
	$(BIN)/python -m pytest -n auto --dist loadfile

test-slow: .venv/ready   # the long checks that `make test` leaves out, up to 25 minutes on two cores
	$(BIN)/python -m pytest -n auto --dist loadfile -m slow

lint: .venv/ready        # the linter, the formatter and the type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: .venv/ready        # the main job on embedded data, about a minute; ends with its answer and the paths to open
	$(BIN)/python misc/demo.py

paper-smoke: .venv/ready # every script of misc/paper on the embedded digits, tiny settings, a few minutes
	PYTHON=$(BIN)/python bash misc/paper/smoke.sh

benchmark: .venv/ready   # speed against the straightforward way
	$(BIN)/python misc/benchmark.py

# An environment of the user's, which may be a link and need not be writable, gets only the packages
# that it lacks. uv makes environments without pip, and so does an interrupted venv.
.venv/ready: requirements.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@ 2>/dev/null || true

clean:                   # removes .venv and the demo
	rm -rf .venv demo
