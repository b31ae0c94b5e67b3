"""The grasp-and-lift task as a batch of environments: the order in which a step happens."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dexgrasp_sim.config import parse_config
from dexgrasp_sim.control.decoder import make_decoder
from dexgrasp_sim.control.proprioception import Proprioception
from dexgrasp_sim.objects.config import SHAPE_CLASSES
from dexgrasp_sim.physics.mujoco.batch import MujocoBatch
from dexgrasp_sim.random_streams import RandomStreams
from dexgrasp_sim.robot.kuka_allegro import load_robot
from dexgrasp_sim.tasks.grasp import observations
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.episodes import EpisodeTracker
from dexgrasp_sim.tasks.grasp.images import Images
from dexgrasp_sim.tasks.grasp.latency import ActionDelay
from dexgrasp_sim.tasks.grasp.randomization import Pushes, draw_physics
from dexgrasp_sim.tasks.grasp.rewards import Scene, weighted_terms
from dexgrasp_sim.tasks.grasp.sensors import Sensors
from dexgrasp_sim.tasks.grasp.starts import EpisodeStarts

_STATE = (
    "step_count",
    "episode_count",
    "start_height",
    "episode_difficulty",
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
        streams = RandomStreams(seed, torch.arange(num_envs) + env_offset)
        self.images = Images(config, self.engine, streams, groups)
        self._robot = robot = load_robot()
        self.decoder = make_decoder(
            config.action, robot, num_envs, config.control_dt_s, difficulty=config.difficulty
        )
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
        self._starts = EpisodeStarts(config, self._robot, self.object_index)
        extents = torch.tensor([item.extents_m for item in objects])
        shape = torch.tensor([SHAPE_CLASSES.index(item.shape_class) for item in objects])
        one_hot = torch.nn.functional.one_hot(shape, len(SHAPE_CLASSES)).float()
        self._object_shape = torch.cat((extents, one_hot), dim=1)
        self._workspace = torch.tensor(config.workspace)
        self.step_count = torch.zeros(count, dtype=torch.int64)
        self.episode_count = torch.zeros(count, dtype=torch.int64)
        self.start_height = torch.zeros(count)
        self.episode_difficulty = torch.zeros(count)
        top_m = config.table.top_m
        goals = [config.goal_at(top_m + item.solid.rest_height_m) for item in objects]
        self.goal = torch.tensor(goals)
        index = torch.from_numpy(self.object_index)
        self.episodes = EpisodeTracker(config.success, config.control_dt_s, index)
        self.last_action = torch.zeros(count, self.action_dim)
        self.diverged = torch.zeros(count, dtype=torch.bool)

    def _add_randomization(self) -> None:
        """Makes what the config asks for; without any of it nothing is drawn nor computed."""
        config, robot = self.config, self._robot
        self.difficulty = config.difficulty
        joints = len(robot.joint_names)
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
        self.decoder.set_difficulty(difficulty)

    def reset(self, out: Mapping[str, Tensor], first_episode: int = 0) -> None:
        """See `VecEnv.reset`."""
        self.episode_count.fill_(first_episode)
        self.diverged.fill_(False)
        everywhere = torch.arange(self.num_envs)
        self._begin_episodes(everywhere)
        if self.config.stagger_starts:
            for env in range(self.num_envs):
                steps = self._generator(env, "stagger").integers(self.config.episode_steps)
                self.step_count[env] = self.episodes.skipped_steps[env] = int(steps)
        for name in ("reward", "terminated", "truncated", "episode"):
            out[name].zero_()
        self._observe(everywhere, out)

    def reset_envs(self, env_ids: Tensor, out: Mapping[str, Tensor]) -> None:
        """See `VecEnv.reset_envs`."""
        self.diverged[env_ids] = False
        self._begin_episodes(env_ids)
        self._observe(env_ids, out, again=True)

    def step(self, actions: Tensor, out: Mapping[str, Tensor]) -> None:
        """See `VecEnv.step`."""
        self.last_action.copy_(torch.nan_to_num(actions).clamp(-1.0, 1.0))
        self._simulate(self.decoder.decode(self.last_action))
        self.diverged.copy_(self.engine.diverged)
        self.step_count += 1
        height, farthest = self._height_and_farthest()
        self._reward_and_track(height, farthest, out["reward"])
        terminated = self._out_of_workspace()
        timed_out = self.step_count >= self.config.episode_steps
        truncated = (timed_out | self.episodes.held_to_end()) & ~terminated
        out["terminated"].copy_(terminated)
        out["truncated"].copy_(truncated)
        ended = torch.nonzero(terminated | truncated).squeeze(1)
        if len(ended):
            rows = self.episodes.rows(self.step_count, height, farthest, truncated)
            out["episode"][ended] = rows[ended]
            self._begin_episodes(ended)
        self._observe(ended, out)

    def _simulate(self, targets: Tensor) -> None:
        if self._pushes is not None:
            _, farthest = self._height_and_farthest()
            self._pushes.apply(self.engine, farthest, self.step_count)
        if self.decoder.velocity_target is not None:
            targets = targets + self.engine.velocity_lead_s * self.decoder.velocity_target
        if self._delay is None:
            self.engine.step(targets)
        else:
            self.engine.step(*self._delay.send(targets))

    def _observe(self, begun: Tensor, out: Mapping[str, Tensor], again: bool = False) -> None:
        """Measures, once per control step unless `again`, and writes the observations."""
        if self._sensors is None:
            self.write_observations(out)
            return
        self._sensors.measure(self.step_count, begun, again)
        self.write_observations(out)
        self._sensors.delay_images(out, begun, again)

    def write_observations(self, out: Mapping[str, Tensor]) -> None:
        """Writes the groups of `observation_specs` for the current state, images of now."""
        for spec in self.observation_specs:
            self._write_group(spec.name, out[spec.name])

    def _write_group(self, group: str, out: Tensor) -> None:
        engine = self.engine
        measured = engine if self._sensors is None else self._sensors
        if group == "depth":
            self.images.write_depth(self.step_count, out)
        elif group == "stereo_rgb":
            self.images.write_stereo_rgb(self.step_count, out)
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

    def _reward_and_track(self, height: Tensor, farthest: Tensor, reward: Tensor) -> None:
        from_goal = self.engine.object_position - self.goal
        goal_height = self.goal[:, 2] - self.start_height
        scene = Scene(farthest, height, goal_height, from_goal, self.engine.joint_position)
        terms = weighted_terms(self.config.reward, scene, self.episode_difficulty)
        torch.sum(terms, dim=1, out=reward)
        goal_distance = torch.linalg.norm(from_goal, dim=1)
        self.episodes.track(self.step_count, height, goal_distance, terms)

    def _out_of_workspace(self) -> Tensor:
        position = self.engine.object_position
        lower, upper = self._workspace
        return ~((position >= lower) & (position <= upper)).all(dim=1)  # NaN is outside too

    def _begin_episodes(self, ids: Tensor) -> None:
        self._draw_randomization(ids)
        starts = self._starts.draw(ids, self.difficulty, self._generator, self.decoder)
        pose, posture = starts.object_pose, starts.joint_position
        self.decoder.reset(ids, posture)
        self.engine.reset(ids, posture, pose, starts.joint_velocity)
        if self._delay is not None:
            self._delay.restart(ids, posture)
        self.start_height[ids] = self.origin[2] + self._starts.rest_height[ids]
        self.episode_count[ids] += 1
        self.images.begin(ids, self.episode_count[ids])
        self.step_count[ids] = 0
        self.episode_difficulty[ids] = self.difficulty
        self.episodes.begin(ids, pose[:, 2] - self.start_height[ids])
        self.last_action[ids] = 0.0

    def _draw_randomization(self, ids: Tensor) -> None:
        """Draws what is wrong in the episodes that begin: noise, delays, physics, pushes."""
        for purpose, part in self._random_parts().items():
            for env in ids.tolist():
                part.begin(env, self.difficulty, self._generator(env, purpose))
        config = self.config.randomization
        if config.changes_physics:
            generators = [self._generator(env, "physics") for env in ids.tolist()]
            parameters = draw_physics(config, self.difficulty, generators, self._robot.num_joints)
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
        state |= {f"episode.{key}": value for key, value in self.episodes.state_dict().items()}
        for prefix, part in self._random_parts().items():
            state |= {f"{prefix}.{key}": value for key, value in part.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> None:
        """See `VecEnv.load_state_dict`."""
        for name in _STATE:
            getattr(self, name).copy_(state[name])
        self.diverged.fill_(False)
        self.engine.load_state_dict(_strip(state, "engine."))
        self.images.begin(torch.arange(self.num_envs), self.episode_count)
        self.decoder.load_state_dict(_strip(state, "decoder."))
        self.episodes.load_state_dict(_strip(state, "episode."))
        for prefix, part in self._random_parts().items():
            part.load_state_dict(_strip(state, f"{prefix}."))
        self.write_observations(out)
        if self._sensors is not None:
            self._sensors.show_images(out)

    def telemetry(self, index: int) -> dict[str, Tensor]:
        """See `VecEnv.telemetry`."""
        engine = self.engine
        pose = torch.cat((engine.object_position[index], engine.object_quaternion[index]))
        return {
            "joint_position": engine.joint_position[index].clone(),
            "joint_velocity": engine.joint_velocity[index].clone(),
            "object_pose": pose,
            "goal": self.goal[index].clone(),
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
