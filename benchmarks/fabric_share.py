"""The share of the geometric fabric in a control step of the task, during scripted grasps."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from dexgrasp_sim.control.decoder import make_decoder
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.scripted import make_script
from dexgrasp_sim.vec_env import allocate

_GROUPS = ("proprio", "state")
_GRASP_S = 2.0
"""Enough to reach, close and lift."""


def fabric_sides(config: GraspConfig, envs: int) -> dict[str, Callable[[], float]]:
    """Functions that measure the task with the fabric, and the fabric alone, in control steps/s.

    Args:
        config: A task whose actions are of kind fabric.
        envs: Environments.
    """
    tape = _scripted_tape(config, envs)
    return {
        "state_fabric": lambda: _task_steps_per_s(config, tape),
        "fabric_alone": lambda: _fabric_steps_per_s(config, tape),
    }


@torch.inference_mode()
def _scripted_tape(config: GraspConfig, envs: int) -> Tensor:
    """Actions [T, envs, A] of the scripted policy for the first seconds of an episode."""
    env = make_grasp_env(config, envs, groups=_GROUPS)
    try:
        out = allocate(env)
        env.reset(out)
        script = make_script(env)
        tape = []
        for _ in range(round(_GRASP_S * config.control_hz)):
            tape.append(script.act().clone())
            env.step(tape[-1], out)
        return torch.stack(tape)
    finally:
        env.close()


@torch.inference_mode()
def _task_steps_per_s(config: GraspConfig, tape: Tensor) -> float:
    env = make_grasp_env(config, tape.shape[1], groups=_GROUPS)
    try:
        out = allocate(env)
        env.reset(out)
        started_s = time.perf_counter()
        for actions in tape:
            env.step(actions, out)
        return tape[..., 0].numel() / (time.perf_counter() - started_s)
    finally:
        env.close()


@torch.inference_mode()
def _fabric_steps_per_s(config: GraspConfig, tape: Tensor) -> float:
    """The decoder alone, without physics."""
    robot, envs = config.load_robot(), tape.shape[1]
    decoder = make_decoder(config.action, robot, envs, config.control_dt_s, config.table_obstacle)
    decoder.decode(tape[0])
    started_s = time.perf_counter()
    for actions in tape:
        decoder.decode(actions)
    return tape[..., 0].numel() / (time.perf_counter() - started_s)
