"""The grasp-and-lift task as a batch of environments: the order in which a step happens."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dexgrasp_sim.config import parse_config
from dexgrasp_sim.control.action_decoder import ActionDecoder
from dexgrasp_sim.control.proprioception import Proprioception
from dexgrasp_sim.physics.mujoco_batch import MujocoBatch
from dexgrasp_sim.robot.kuka_allegro import load_robot
from dexgrasp_sim.tasks.grasp import observations, rewards
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.objects import SHAPE_CLASSES

_CLEARANCE_M = 0.002
"""An object starts this far above the table, so that it does not start in contact."""

_STATE = (
    "step_count",
    "episode_count",
    "start_height",
    "held_steps",
    "max_height",
    "episode_return",
    "last_action",
)


class GraspEnv:
    """See `VecEnv`. Environment i holds object (env_offset + i) modulo the number of objects."""

    def __init__(
        self,
        config: GraspConfig,
        num_envs: int,
        seed: int,
        threads: int,
        groups: Sequence[str],
        env_offset: int = 0,
    ) -> None:
        """See `make_env`."""
        self.config = config
        self.num_envs = num_envs
        self.control_dt_s = config.control_dt_s
        self.action_dim = len(config.action.dimensions)
        self.observation_specs = tuple(
            observations.observation_spec(config, group) for group in groups
        )
        self._seed = seed
        self._env_offset = env_offset
        self.object_index = (np.arange(num_envs) + env_offset) % len(config.objects)
        self.engine = MujocoBatch(config, self.object_index.tolist(), threads)
        robot = load_robot()
        self.decoder = ActionDecoder(config.action, robot, num_envs, config.control_dt_s)
        self._proprioception = Proprioception(robot, config.action)
        self._allocate()

    @staticmethod
    def from_dict(
        config: Mapping[str, Any],
        num_envs: int,
        seed: int,
        threads: int,
        groups: Sequence[str],
        env_offset: int = 0,
    ) -> "GraspEnv":
        """See `make_env`."""
        grasp = parse_config(GraspConfig, dict(config), source="task")
        return GraspEnv(grasp, num_envs, seed, threads, groups, env_offset)

    def _allocate(self) -> None:
        config, count = self.config, self.num_envs
        center_x, center_y = config.spawn.center_m
        self.origin = torch.tensor([center_x, center_y, config.table.top_m])
        objects = [config.objects[index] for index in self.object_index]
        self._rest_height = torch.tensor([item.solid.rest_height_m for item in objects])
        extents = torch.tensor([item.extents_m for item in objects])
        shape = torch.tensor([SHAPE_CLASSES.index(item.shape_class) for item in objects])
        one_hot = torch.nn.functional.one_hot(shape, len(SHAPE_CLASSES)).float()
        self._object_shape = torch.cat((extents, one_hot), dim=1)
        self.step_count = torch.zeros(count, dtype=torch.int64)
        self.episode_count = torch.zeros(count, dtype=torch.int64)
        self.start_height = torch.zeros(count)
        self.held_steps = torch.zeros(count, dtype=torch.int64)
        self.max_height = torch.zeros(count)
        self.episode_return = torch.zeros(count)
        self.last_action = torch.zeros(count, self.action_dim)

    def reset(self, out: Mapping[str, Tensor]) -> None:
        """See `VecEnv.reset`."""
        self.episode_count.zero_()
        self._begin_episodes(torch.arange(self.num_envs))
        if self.config.stagger_starts:
            for env in range(self.num_envs):
                steps = self._generator(env, "stagger").integers(self.config.episode_steps)
                self.step_count[env] = int(steps)
        for name in ("reward", "terminated", "truncated", "episode"):
            out[name].zero_()
        self.write_observations(out)

    def step(self, actions: Tensor, out: Mapping[str, Tensor]) -> None:
        """See `VecEnv.step`."""
        self.last_action.copy_(torch.nan_to_num(actions).clamp(-1.0, 1.0))
        self.engine.step(self.decoder.decode(self.last_action))
        self.step_count += 1
        height, farthest = self._height_and_farthest()
        reward = self._reward(height, farthest)
        terminated = self._out_of_workspace()
        truncated = (self.step_count >= self.config.episode_steps) & ~terminated
        self._track(height, reward)
        out["reward"].copy_(reward)
        out["terminated"].copy_(terminated)
        out["truncated"].copy_(truncated)
        ended = torch.nonzero(terminated | truncated).squeeze(1)
        if len(ended):
            self._write_episodes(ended, height, farthest, truncated, out["episode"])
            self._begin_episodes(ended)
        self.write_observations(out)

    def write_observations(self, out: Mapping[str, Tensor]) -> None:
        """Writes the groups of `observation_specs` for the current state."""
        for spec in self.observation_specs:
            self._write_group(spec.name, out[spec.name])

    def _write_group(self, group: str, out: Tensor) -> None:
        engine = self.engine
        if group == "depth":
            engine.render_depth(out)
        elif group == "stereo_rgb":
            engine.render_stereo_rgb(out)
        elif group == "state":
            observations.write_object_state(engine, self.origin, self._object_shape, out)
        elif group == "critic":
            observations.write_privileged(engine, out)
        elif group == "object":
            observations.write_auxiliary_target(engine, self.origin, out)
        else:
            self._proprioception.observe(
                engine.joint_position,
                engine.joint_velocity,
                self.decoder,
                self.last_action,
                self.step_count / self.config.episode_steps,
                out,
            )

    def _height_and_farthest(self) -> tuple[Tensor, Tensor]:
        """Height above the start, and the largest distance of the hand's points, both [N] m."""
        engine = self.engine
        points = torch.cat(
            (engine.fingertip_position, engine.grasp_center_position.unsqueeze(1)), dim=1
        )
        distance = torch.linalg.norm(points - engine.object_position.unsqueeze(1), dim=2)
        return engine.object_position[:, 2] - self.start_height, distance.amax(dim=1)

    def _reward(self, height: Tensor, farthest: Tensor) -> Tensor:
        config = self.config
        goal = self.origin.repeat(self.num_envs, 1)
        goal[:, 2] = self.start_height + config.goal_height_m
        distance = torch.linalg.norm(self.engine.object_position - goal, dim=1)
        terms = {
            "reach": rewards.reach(farthest),
            "lift": rewards.lift(height, config.goal_height_m, farthest),
            "goal": rewards.goal(distance),
        }
        return rewards.total(config.reward, terms)

    def _out_of_workspace(self) -> Tensor:
        offset = self.engine.object_position - self.origin
        sideways = offset[:, :2].abs().amax(dim=1) > self.config.workspace_m
        return sideways | (offset[:, 2] < 0.0) | ~torch.isfinite(offset).all(dim=1)

    def _track(self, height: Tensor, reward: Tensor) -> None:
        lifted = height > self.config.success.height_m
        self.held_steps = torch.where(lifted, self.held_steps + 1, 0)
        torch.maximum(self.max_height, height, out=self.max_height)
        self.episode_return += reward

    def _write_episodes(
        self, ended: Tensor, height: Tensor, farthest: Tensor, truncated: Tensor, out: Tensor
    ) -> None:
        """Fills the `episode` rows of the environments that ended; see EPISODE_FIELDS."""
        success = self.config.success
        hold_steps = success.hold_steps(self.control_dt_s)
        succeeded = truncated & (self.held_steps >= hold_steps) & (farthest < success.reach_m)
        dropped = (self.max_height > success.height_m) & (height < success.height_m / 2)
        columns = (
            self.episode_return,
            self.step_count.float(),
            succeeded.float(),
            self.max_height,
            dropped.float(),
            torch.from_numpy(self.object_index).float(),
        )
        out[ended] = torch.stack(columns, dim=1)[ended]

    def _begin_episodes(self, ids: Tensor) -> None:
        spawn = self.config.spawn
        pose = torch.zeros(len(ids), 7)
        for row, env in enumerate(ids.tolist()):
            x, y, yaw = self._generator(env, "spawn").uniform(-1.0, 1.0, 3)
            pose[row, 0] = spawn.center_m[0] + spawn.half_width_m[0] * x
            pose[row, 1] = spawn.center_m[1] + spawn.half_width_m[1] * y
            pose[row, 3] = np.cos(spawn.yaw_rad * yaw / 2)
            pose[row, 6] = np.sin(spawn.yaw_rad * yaw / 2)
        pose[:, 2] = self.origin[2] + self._rest_height[ids] + _CLEARANCE_M
        self.decoder.reset(ids)
        start = self.decoder.start_position.expand(len(ids), -1)
        self.engine.reset(ids, start, pose)
        self.start_height[ids] = pose[:, 2] - _CLEARANCE_M
        self.episode_count[ids] += 1
        self.step_count[ids] = 0
        self.held_steps[ids] = 0
        self.max_height[ids] = 0.0
        self.episode_return[ids] = 0.0
        self.last_action[ids] = 0.0

    def _generator(self, env: int, purpose: str) -> np.random.Generator:
        """A generator of its own for each environment, episode and purpose."""
        key = (
            self._seed,
            self._env_offset + env,
            int(self.episode_count[env]),
            {"spawn": 0, "stagger": 1}[purpose],
        )
        return np.random.default_rng(key)

    def state_dict(self) -> dict[str, Tensor]:
        """See `VecEnv.state_dict`."""
        state = {name: getattr(self, name).clone() for name in _STATE}
        state |= {f"engine.{key}": value for key, value in self.engine.state_dict().items()}
        state |= {f"decoder.{key}": value for key, value in self.decoder.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> None:
        """See `VecEnv.load_state_dict`."""
        for name in _STATE:
            getattr(self, name).copy_(state[name])
        self.engine.load_state_dict(_strip(state, "engine."))
        self.decoder.load_state_dict(_strip(state, "decoder."))
        self.write_observations(out)

    def telemetry(self, index: int) -> dict[str, Tensor]:
        """See `VecEnv.telemetry`."""
        engine = self.engine
        goal = self.origin.clone()
        goal[2] = self.start_height[index] + self.config.goal_height_m
        pose = torch.cat((engine.object_position[index], engine.object_quaternion[index]))
        return {
            "joint_position": engine.joint_position[index].clone(),
            "joint_velocity": engine.joint_velocity[index].clone(),
            "object_pose": pose,
            "goal": goal,
        }

    def timings(self) -> dict[str, float]:
        """See `VecEnv.timings`."""
        return self.engine.timings()

    def close(self) -> None:
        """See `VecEnv.close`."""
        self.engine.close()


def _strip(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }
