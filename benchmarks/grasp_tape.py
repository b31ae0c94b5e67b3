"""A recorded grasp for benchmarks, so that contacts cost as much physics time as in an episode."""

from pathlib import Path

import torch
from torch import Tensor

from dexgrasp_learner.config import RunConfig, load_run_config
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.control.palm_velocity.decoder import ActionConfig
from dexgrasp_sim.tasks.grasp.config import GraspConfig

_APPROACH_S, _CLOSE_S, _LIFT_S = 0.7, 0.8, 1.0
TAPE_S = _APPROACH_S + _CLOSE_S + _LIFT_S
_DESCENT_M_S = 0.16
"""The grasp centre starts 17 cm above the table; the objects' centres are 3.5 to 5 cm above it."""


def grasp_config(path: Path, control_hz: float) -> RunConfig:
    """A run's config with the reference physics and the objects where the tape grasps.

    An episode lasts as long as the tape; environments start at different steps of it.

    Args:
        path: YAML file of a run whose actions are palm velocities.
        control_hz: Rate of the policy.

    Raises:
        ConfigError: The file or the rate is wrong.
    """
    return load_run_config(
        path,
        [
            f"task.control_hz={control_hz}",
            "task.physics.mujoco.integrator=implicitfast",
            f"task.physics.timestep_s={1 / 120}",
            "task.spawn.half_width_m=[0.0, 0.0]",
            f"task.episode_s={TAPE_S}",
            "task.stagger_starts=true",
        ],
    )


def grasp_tape(task: GraspConfig) -> Tensor:
    """Actions [T, A], the same for all environments: down, close, up.

    Raises:
        ConfigError: The task's actions are not palm velocities.
    """
    action, rate_hz = task.action, task.control_hz
    if not isinstance(action, ActionConfig):
        raise ConfigError(
            f"task.action.kind {action.kind!r}: this benchmark plays palm velocities; give a "
            "config with kind 'velocity'"
        )
    names = task.action_names
    tape = torch.zeros(round(TAPE_S * rate_hz), len(names))
    closing, lifting = round(_APPROACH_S * rate_hz), round((_APPROACH_S + _CLOSE_S) * rate_hz)
    tape[:closing, names.index("palm_z")] = -_DESCENT_M_S / action.palm_speed_m_s
    tape[closing:, names.index("finger_closure")] = 1.0
    tape[closing:, names.index("thumb_closure")] = 1.0
    tape[lifting:, names.index("palm_z")] = _DESCENT_M_S / action.palm_speed_m_s
    return tape
