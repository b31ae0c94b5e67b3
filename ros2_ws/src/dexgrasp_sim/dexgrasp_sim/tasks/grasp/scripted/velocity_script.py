"""A scripted policy for palm velocities and the closure of the hand."""

import torch
from torch import Tensor

from dexgrasp_sim.control.palm_velocity.decoder import ActionDecoder
from dexgrasp_sim.tasks.grasp.env import GraspEnv

_APPROACH_S = 1.4
_CLOSE_S = 1.1
_LIFT_HEIGHT_M = 0.24


class ScriptedPolicy:
    """Moves the open hand over the object, down to it, closes and lifts."""

    def __init__(self, env: GraspEnv) -> None:
        """Needs the action space of palm velocities."""
        assert isinstance(env.decoder, ActionDecoder)
        self._env, self._decoder = env, env.decoder

    def act(self) -> Tensor:
        """Actions [N, action_dim] for the current state of the environments."""
        env, config = self._env, self._env.config
        decoder = self._decoder
        time_s = env.step_count.float() * config.control_dt_s
        closing = time_s >= _APPROACH_S
        lifting = time_s >= _APPROACH_S + _CLOSE_S
        target = env.engine.object_position.clone()  # [N, 3]
        target[closing] = decoder.palm_position[closing]
        target[lifting, 2] = config.table.top_m + _LIFT_HEIGHT_M
        step_m = decoder.config.palm_speed_m_s * config.control_dt_s
        velocity = (target - decoder.palm_position) / step_m
        wanted = dict(zip(("palm_x", "palm_y", "palm_z"), velocity.clamp(-1.0, 1.0).unbind(1)))
        synergies = env.robot.palm_velocity.synergies
        wanted |= {synergy.name: closing.float() for synergy in synergies if synergy.closes}
        still = torch.zeros(env.num_envs)
        return torch.stack([wanted.get(name, still) for name in decoder.action_names], dim=1)
