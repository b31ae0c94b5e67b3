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
from dexgrasp_sim.tasks.grasp.images import Images
from dexgrasp_sim.tasks.grasp.latency import ActionDelay
from dexgrasp_sim.tasks.grasp.objects import SHAPE_CLASSES
from dexgrasp_sim.tasks.grasp.randomization import (
    Pushes,
    Start,
    draw_physics,
    draw_start,
    tilted,
)
from dexgrasp_sim.tasks.grasp.sensors import Sensors

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
_PURPOSES = ("spawn", "stagger", "sensors", "delay", "physics", "start", "pushes")
"""What episodes draw at random; a purpose's place here is part of its generator's seed."""


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
        self.images = Images(config, self.engine, seed, env_offset)
        self._robot = robot = load_robot()
        self.decoder = ActionDecoder(config.action, robot, num_envs, config.control_dt_s)
        self._proprioception = Proprioception(robot, config.action)
        self._allocate()
        self._add_randomization()

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

    def _add_randomization(self) -> None:
        """Makes what the config asks for; without any of it nothing is drawn nor computed."""
        config, robot = self.config, self._robot
        self.difficulty = config.difficulty
        joints = len(robot.joint_names)
        limits = [
            (robot.joints[name].lower, robot.joints[name].upper) for name in robot.joint_names
        ]
        self._joint_limits = torch.tensor(limits).T
        self._sensors = self._delay = self._pushes = None
        if not config.measures_exactly:
            self._sensors = Sensors(
                config, self.engine, self._proprioception, self.observation_specs
            )
        if config.latency.delays_actions:
            timestep_s = config.physics.timestep_s
            self._delay = ActionDelay(
                config.latency, self.num_envs, joints, config.physics_steps, timestep_s
            )
        if config.randomization.pushes_objects:
            self._pushes = Pushes(config.randomization, self.num_envs, self.control_dt_s)

    def set_difficulty(self, difficulty: float) -> None:
        """See `VecEnv.set_difficulty`."""
        self.difficulty = difficulty

    def reset(self, out: Mapping[str, Tensor]) -> None:
        """See `VecEnv.reset`."""
        self.episode_count.zero_()
        everywhere = torch.arange(self.num_envs)
        self._begin_episodes(everywhere)
        if self.config.stagger_starts:
            for env in range(self.num_envs):
                steps = self._generator(env, "stagger").integers(self.config.episode_steps)
                self.step_count[env] = int(steps)
        for name in ("reward", "terminated", "truncated", "episode"):
            out[name].zero_()
        self._observe(everywhere, out)

    def step(self, actions: Tensor, out: Mapping[str, Tensor]) -> None:
        """See `VecEnv.step`."""
        self.last_action.copy_(torch.nan_to_num(actions).clamp(-1.0, 1.0))
        self._simulate(self.decoder.decode(self.last_action))
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
        self._observe(ended, out)

    def _simulate(self, targets: Tensor) -> None:
        if self._pushes is not None:
            _, farthest = self._height_and_farthest()
            self._pushes.apply(self.engine, farthest, self.step_count)
        if self._delay is None:
            self.engine.step(targets)
        else:
            self.engine.step(*self._delay.send(targets))

    def _observe(self, begun: Tensor, out: Mapping[str, Tensor]) -> None:
        """Measures, once per control step, and writes the observations."""
        if self._sensors is None:
            self.write_observations(out)
            return
        self._sensors.measure(self.step_count, begun)
        self.write_observations(out)
        self._sensors.delay_images(out, begun)

    def write_observations(self, out: Mapping[str, Tensor]) -> None:
        """Writes the groups of `observation_specs` for the current state, images of now."""
        for spec in self.observation_specs:
            self._write_group(spec.name, out[spec.name])

    def _write_group(self, group: str, out: Tensor) -> None:
        engine = self.engine
        measured = engine if self._sensors is None else self._sensors
        if group == "depth":
            self.images.write_depth(self.episode_count, self.step_count, out)
        elif group == "stereo_rgb":
            self.images.write_stereo_rgb(self.episode_count, self.step_count, out)
        elif group == "state":
            observations.write_object_state(measured, self.origin, self._object_shape, out)
        elif group == "critic":
            exact = self._sensors is None
            observations.write_privileged(engine, self.origin, exact, out)
        elif group == "object":
            observations.write_auxiliary_target(engine, self.origin, out)
        else:
            self._proprioception.observe(
                measured.joint_position,
                measured.joint_velocity,
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
        self._draw_randomization(ids)
        starts = [self._draw_start(env) for env in ids.tolist()]
        pose = self._spawn(ids, starts)
        self.decoder.reset(ids)
        posture, velocity = self.decoder.start_position.expand(len(ids), -1), None
        if self.config.randomization.changes_starts:
            posture = posture + torch.stack([start.joint_offset for start in starts])
            posture = posture.clamp(*self._joint_limits)
            velocity = torch.stack([start.joint_velocity for start in starts])
        self.engine.reset(ids, posture, pose, velocity)
        if self._delay is not None:
            self._delay.restart(ids, posture)
        resting = self.origin[2] + self._rest_height[ids] + _CLEARANCE_M
        self.start_height[ids] = resting - _CLEARANCE_M
        self.episode_count[ids] += 1
        self.step_count[ids] = 0
        self.held_steps[ids] = 0
        self.max_height[ids] = 0.0
        self.episode_return[ids] = 0.0
        self.last_action[ids] = 0.0

    def _spawn(self, ids: Tensor, starts: Sequence[Start]) -> Tensor:
        """Object poses [K, 7] xyz m and quaternion wxyz."""
        spawn = self.config.spawn
        pose = torch.zeros(len(ids), 7)
        for row, (env, start) in enumerate(zip(ids.tolist(), starts, strict=True)):
            x, y, yaw = self._generator(env, "spawn").uniform(-1.0, 1.0, 3)
            pose[row, 0] = spawn.center_m[0] + start.width_scale * spawn.half_width_m[0] * x
            pose[row, 1] = spawn.center_m[1] + start.width_scale * spawn.half_width_m[1] * y
            half_yaw = start.yaw_scale * spawn.yaw_rad * yaw / 2
            upright = (np.cos(half_yaw), 0.0, 0.0, np.sin(half_yaw))
            pose[row, 3:] = torch.from_numpy(tilted(upright, start.tilt_rad))
        height = self._rest_height[ids]
        if not self.config.randomization.spawn_tilt_rad.is_always(0.0):
            # in any attitude clear of the table
            height = torch.linalg.norm(self._object_shape[ids, :3], dim=1) / 2
        pose[:, 2] = self.origin[2] + height + _CLEARANCE_M
        return pose

    def _draw_start(self, env: int) -> Start:
        config = self.config.randomization
        if not config.changes_starts:
            return Start()
        joints = self._joint_limits.shape[1]
        return draw_start(config, self.difficulty, self._generator(env, "start"), joints)

    def _draw_randomization(self, ids: Tensor) -> None:
        """Draws what is wrong in the episodes that begin: noise, delays, physics, pushes."""
        for purpose, part in self._random_parts().items():
            for env in ids.tolist():
                part.begin(env, self.difficulty, self._generator(env, purpose))
        config = self.config.randomization
        if config.changes_physics:
            generators = [self._generator(env, "physics") for env in ids.tolist()]
            joints = self._joint_limits.shape[1]
            parameters = draw_physics(config, self.difficulty, generators, joints)
            self.engine.set_parameters(ids, parameters)

    def _random_parts(self) -> dict[str, Sensors | ActionDelay | Pushes]:
        """What draws at the start of an episode and has a state, by the name of its purpose."""
        parts = {"sensors": self._sensors, "delay": self._delay, "pushes": self._pushes}
        return {purpose: part for purpose, part in parts.items() if part is not None}

    def _generator(self, env: int, purpose: str) -> np.random.Generator:
        """A generator of its own for each environment, episode and purpose."""
        key = (
            self._seed,
            self._env_offset + env,
            int(self.episode_count[env]),
            _PURPOSES.index(purpose),
        )
        return np.random.default_rng(key)

    def state_dict(self) -> dict[str, Tensor]:
        """See `VecEnv.state_dict`."""
        state = {name: getattr(self, name).clone() for name in _STATE}
        state |= {f"engine.{key}": value for key, value in self.engine.state_dict().items()}
        state |= {f"decoder.{key}": value for key, value in self.decoder.state_dict().items()}
        for prefix, part in self._random_parts().items():
            state |= {f"{prefix}.{key}": value for key, value in part.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> None:
        """See `VecEnv.load_state_dict`."""
        for name in _STATE:
            getattr(self, name).copy_(state[name])
        self.engine.load_state_dict(_strip(state, "engine."))
        self.decoder.load_state_dict(_strip(state, "decoder."))
        for prefix, part in self._random_parts().items():
            part.load_state_dict(_strip(state, f"{prefix}."))
        self.write_observations(out)
        if self._sensors is not None:
            self._sensors.show_images(out)

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
