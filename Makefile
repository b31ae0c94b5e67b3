SHELL := /bin/bash
BIN := .venv/bin

BACKEND_TESTS := $(addprefix ros2_ws/src/dexgrasp_sim/test/,test_backends.py test_engine_contract.py \
  test_engine_images.py test_engine_parameters.py test_isaaclab.py test_mujoco_warp.py) tests/test_backend_tasks.py

.PHONY: help setup setup-isaac demo test test-fast test-backends check format bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 12

setup:  ## Python packages, ROS 2 and our messages, in .venv and ros2_ws; ROS_WHEELS=kilted, PYTHON=...
	@scripts/setup.sh

setup-isaac:  ## Isaac Lab 3.0 without Isaac Sim in .venv-isaac, for task.physics.backend=isaaclab; PYTHON=...
	@scripts/setup_isaac.sh

demo: setup  ## run the shipped policy on a simulated robot, train another, compare both; report and films
	@$(BIN)/dexgrasp demo

test: check  ## lint, types and the whole test suite
	@$(BIN)/python -m pytest

test-fast: setup  ## the tests without processes, browsers and trainings, on all cores
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m 'not slow'

test-backends: setup  ## what every physics backend must do; on a GPU with DEXGRASP_TEST_DEVICE=cuda:0
	@$(BIN)/python -m pytest $(BACKEND_TESTS)

check: setup  ## lint, formatting and types
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@source ros2_ws/install/setup.bash && $(BIN)/pyright -p pyproject.toml --pythonpath "$$PWD/$(BIN)/python"

format: setup  ## let ruff format and mend what it can
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

bench: setup  ## measure speed and latency
	@$(BIN)/dexgrasp bench rollout

clean:  ## remove all that set-up made
	@rm -rf .venv .venv-isaac ros2_ws/build ros2_ws/install ros2_ws/log
