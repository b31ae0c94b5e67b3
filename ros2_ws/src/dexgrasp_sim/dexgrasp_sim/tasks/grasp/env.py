"""The grasp-and-lift task as a batch of environments; its methods fix the order of a step.

All tensors live on the engine's device. The host waits for the device once per control step, in
`_end_episodes`, which needs the indices of the episodes that have ended.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from dexgrasp_sim.control.decoder import make_decoder
from dexgrasp_sim.control.proprioception import Proprioception
from dexgrasp_sim.device_graphs import Captured
from dexgrasp_sim.devices import rows_of
from dexgrasp_sim.objects.config import SHAPE_CLASSES
from dexgrasp_sim.objects.lowest_points import LowestPoints
from dexgrasp_sim.physics.engine import PhysicsEngine, PhysicsParameters
from dexgrasp_sim.random_streams import Purpose, RandomStreams
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.episode_draws import EpisodeDraws
from dexgrasp_sim.tasks.grasp.episodes import EpisodeTracker, Progress, episode_fields
from dexgrasp_sim.tasks.grasp.images import Images
from dexgrasp_sim.tasks.grasp.latency import ActionDelay, parts_in_effect
from dexgrasp_sim.tasks.grasp.observations import (
    GROUPS,
    Measurements,
    image_groups,
    observation_spec,
)
from dexgrasp_sim.tasks.grasp.randomization import PhysicsDraws, Pushes, farthest
from dexgrasp_sim.tasks.grasp.rewards import Situation, weighted_terms
from dexgrasp_sim.tasks.grasp.sensors import Sensors
from dexgrasp_sim.tasks.grasp.starts import EpisodeStarts
from dexgrasp_sim.vec_env import VecEnv

_OWN_STATE = ("step_count", "episode_count", "episode_difficulty", "last_action")


class GraspEnv(VecEnv):
    """N environments of the grasp-and-lift task."""

    def __init__(
        self,
        config: GraspConfig,
        engine: PhysicsEngine,
        seed: int,
        groups: Sequence[str],
        env_offset: int = 0,
    ) -> None:
        """Args:
        config: The task.
        engine: Simulates `config.scene(num_envs, env_offset)`; closed with the environments.
        seed: Seed of the run, see `environments.make_env`.
        groups: Names of the observation groups to write.
        env_offset: Global index of the first environment.
        """
        self.config, self.engine = config, engine
        self.num_envs, self.device = engine.num_envs, engine.device
        self.control_dt_s = config.control_dt_s
        self.action_dim = len(config.action_names)
        self.episode_fields = episode_fields()
        self.observation_specs = tuple(observation_spec(config, group) for group in groups)
        index = torch.arange(env_offset, env_offset + self.num_envs, device=self.device)
        self.streams = RandomStreams(seed, index)
        self.robot = engine.scene.robot
        self.decoder = make_decoder(
            config.action,
            self.robot,
            self.num_envs,
            config.control_dt_s,
            config.table_obstacle,
            device=self.device,
            difficulty=config.difficulty,
        )
        self.proprioception = Proprioception(self.robot, config.action, self.device)
        self.images = Images(config, engine, self.streams, groups)
        self.starts = EpisodeStarts(config, self.robot, self.streams, self.decoder)
        self.difficulty = config.difficulty
        self._judge, self._height = Captured(self._judged), Captured(self._height_of)
        self._allocate()
        self._add_objects()
        self._parts = nn.ModuleDict({"episode": self.episodes, **self._make_randomization()})

    def _allocate(self) -> None:
        config, count, device = self.config, self.num_envs, self.device
        center_x, center_y = config.spawn.center_m
        self.origin = torch.tensor([center_x, center_y, config.table.top_m], device=device)
        self._workspace = torch.tensor(config.workspace, device=device)
        self._flat_hand = torch.tensor(self.robot.flat_hand, device=device)
        self.step_count = torch.zeros(count, dtype=torch.int64, device=device)
        self.episode_count = torch.zeros(count, dtype=torch.int64, device=device)
        self.episode_difficulty = torch.zeros(count, device=device)
        self.last_action = torch.zeros(count, self.action_dim, device=device)
        self.diverged = torch.zeros(count, dtype=torch.bool, device=device)

    def _add_objects(self) -> None:
        """Makes the tensors that depend on the object of each environment."""
        config, device = self.config, self.device
        self.object_index = torch.tensor(self.engine.scene.object_of_env, device=device)  # [N]
        objects, top_m = config.objects, config.table.top_m
        rest = [top_m + item.solid.rest_height_m for item in objects]
        self.start_height = torch.tensor(rest, device=device)[self.object_index]  # [N]
        goals = [config.goal_at(height) for height in rest]
        self.goal = torch.tensor(goals, device=device)[self.object_index]  # [N, 3]
        solids = [item.solid for item in objects]
        self._lowest_points = LowestPoints(solids, self.object_index)
        extents = torch.tensor([item.extents_m for item in objects], device=device)  # [M, 3]
        shapes = [SHAPE_CLASSES.index(item.shape_class) for item in objects]
        one_hot = torch.eye(len(SHAPE_CLASSES), device=device)[shapes]  # [M, classes]
        self.object_shape = torch.cat((extents, one_hot), dim=1)[self.object_index]
        self.episodes = EpisodeTracker(config.success, config.control_dt_s, self.object_index)

    def _make_randomization(self) -> dict[str, nn.Module]:
        """Makes the parts that the config needs; the others stay None and cost nothing."""
        config, joints = self.config, self.robot.num_joints
        parts = self.decoder.steps_per_period
        self._sensors = self._delay = self._pushes = None
        if not config.measures_exactly:
            images = tuple(s for s in self.observation_specs if s.name in image_groups())
            self._sensors = Sensors(config, self.engine, self.proprioception, images, self.streams)
        if config.latency.delays_actions:
            timestep_s = config.physics.timestep_s
            self._delay = ActionDelay(
                config.latency, self.streams, joints, config.physics_steps, timestep_s, parts
            )
        if config.randomization.pushes_objects:
            self._pushes = Pushes(config.randomization, self.streams, self.control_dt_s)
        made = {"sensors": self._sensors, "delay": self._delay, "pushes": self._pushes}
        found = {name: part for name, part in made.items() if part is not None}
        self._taking = (*found.values(), self.images)
        physics = PhysicsDraws(config.randomization, self.streams, joints)
        changed = (physics,) if config.randomization.changes_physics else ()
        self._draws = EpisodeDraws((*self._taking, *changed, self.starts))
        return found

    @property
    def measured(self) -> Measurements:
        """Source of the policy's measurements: the sensors, or the engine if they are exact."""
        return self.engine if self._sensors is None else self._sensors

    @property
    def measured_hand_points(self) -> Tensor | None:
        """[N, F + 1, 3] m as `Proprioception.hand_points` if the sensors have them, else None."""
        return None if self._sensors is None else self._sensors.hand_points

    @override
    def set_difficulty(self, difficulty: float) -> None:
        self.difficulty = difficulty
        self.decoder.set_difficulty(difficulty)

    @override
    def reset(self, out: Mapping[str, Tensor], first_episode: int = 0) -> None:
        self.episode_count.fill_(first_episode)
        self.diverged.fill_(False)
        everywhere = torch.arange(self.num_envs, device=self.device)
        self.begin_episodes(everywhere)
        if self.config.stagger_starts:
            drawn = self.streams.uniform(Purpose.STAGGER, self.episode_count)[:, 0]
            steps = (drawn * self.config.episode_steps).long()
            self.step_count.copy_(steps)
            self.episodes.skipped_steps.copy_(steps)
        for name in ("reward", "terminated", "truncated", "episode"):
            out[name].zero_()
        self._observe(everywhere, out)

    @override
    def reset_envs(self, env_ids: Tensor, out: Mapping[str, Tensor]) -> None:
        self.diverged.index_fill_(0, env_ids, False)
        self.begin_episodes(env_ids)
        self._observe(env_ids, out, is_new_step=False)

    @override
    def step(self, actions: Tensor, out: Mapping[str, Tensor]) -> None:
        self.last_action.copy_(torch.nan_to_num(actions).clamp(-1.0, 1.0))
        self.decoder.decode(self.last_action)
        self._simulate()
        self.diverged.copy_(self.engine.diverged)
        self.step_count += 1
        engine = self.engine
        reward, terminated, truncated, rows, *progress = self._judge(
            self.step_count,
            self.episode_difficulty,
            engine.joint_position,
            engine.object_position,
            engine.object_rotation,
            engine.fingertip_position,
            engine.grasp_center_position,
            *self.episodes.progress,
        )
        self.episodes.take(Progress(*progress))
        out["reward"].copy_(reward)
        out["terminated"].copy_(terminated)
        out["truncated"].copy_(truncated)
        self._observe(self._end_episodes(terminated | truncated, rows, out["episode"]), out)

    def _end_episodes(self, ended: Tensor, rows: Tensor, episode: Tensor) -> Tensor:
        """Writes the rows [N, E] of episodes that have ended and begins new ones.

        Returns:
            [K] int64, the environments concerned. To learn K, the host waits for the device.
        """
        ids = rows_of(ended)
        if len(ids):
            episode[ids] = rows[ids]
            self.begin_episodes(ids)
        return ids

    def _simulate(self) -> None:
        """Advances the physics along the path of the decoder."""
        if self._pushes is not None:
            self._pushes.apply(self.engine, self.episode_count, self.step_count)
        path, velocities = self.decoder.path, self.decoder.velocity_path  # [K, N, J]
        if velocities is not None:
            path = path + self.engine.velocity_lead_s * velocities
        if self._delay is not None:
            path = self._delay.send(path)
        elif self.config.physics_steps % len(path):
            path = path[list(parts_in_effect(len(path), self.config.physics_steps))]
        self.engine.step(path)

    def _observe(self, begun: Tensor, out: Mapping[str, Tensor], is_new_step: bool = True) -> None:
        """Measures and writes the observations; arguments as for `Sensors.measure`."""
        if self._sensors is None:
            self.write_observations(out)
            return
        self._sensors.measure(self.episode_count, self.step_count, begun, is_new_step)
        self.write_observations(out)
        self._sensors.delay_images(out, begun, is_new_step)

    def write_observations(self, out: Mapping[str, Tensor]) -> None:
        """Writes the groups of `observation_specs` for the current state, images without delay."""
        for spec in self.observation_specs:
            GROUPS[spec.name].write(self, out[spec.name])

    def object_height(self) -> Tensor:
        """[N] m, of the lowest point of each object above the table, whatever its attitude."""
        return self._height(self.engine.object_position, self.engine.object_rotation)[0]

    def _height_of(self, position: Tensor, rotation: Tensor) -> tuple[Tensor]:
        below = self._lowest_points.below_center(rotation)
        return (position[:, 2] - below - self.config.table.top_m,)

    def _judged(
        self,
        step: Tensor,
        difficulty: Tensor,
        joints: Tensor,
        position: Tensor,
        rotation: Tensor,
        fingertips: Tensor,
        grasp_center: Tensor,
        *before: Tensor,
    ) -> tuple[Tensor, ...]:
        """What comes of a control step.

        Args:
            step: [N] int64, its number in the episode, from 1.
            difficulty: [N], of the episodes.
            joints: [N, J] rad, and so on: the state of the engine.
            position: Of the objects.
            rotation: Of the objects.
            fingertips: Their positions.
            grasp_center: Its position.
            *before: `Progress` of the episodes before this step.

        Returns:
            Reward [N], terminated and truncated [N] bool, the episodes' figures [N, E] as if they
            ended now, and their `Progress`.
        """
        (height,) = self._height_of(position, rotation)
        reach = farthest(position, fingertips, grasp_center)  # [N]
        from_goal = position - self.goal  # [N, 3]
        now = Situation(
            farthest_m=reach,
            palm_offset_m=grasp_center - position,
            height_m=height,
            goal_height_m=self.goal[:, 2] - self.start_height,
            from_goal_m=from_goal,
            off_flat_rad=joints[:, self.robot.hand] - self._flat_hand,
            difficulty=difficulty,
        )
        terms = weighted_terms(self.config.reward, now)  # [N, T]
        goal_distance = torch.linalg.norm(from_goal, dim=1)
        tracker = self.episodes
        progress = tracker.tracked(Progress(*before), step, height, goal_distance, terms)
        terminated = self._out_of_workspace(position)
        timed_out = step >= self.config.episode_steps
        truncated = (timed_out | tracker.held_to_end(progress)) & ~terminated
        rows = tracker.rows_of(progress, step, height, reach, truncated)
        return torch.sum(terms, dim=1), terminated, truncated, rows, *progress

    def _out_of_workspace(self, position: Tensor) -> Tensor:
        lower, upper = self._workspace
        return ~((position >= lower) & (position <= upper)).all(dim=1)  # NaN is outside too

    def begin_episodes(self, ids: Tensor) -> None:
        """Starts episodes in environments [K] int64: draws their parameters, resets the physics.

        The episode number of each environment is counted up first; draws depend only on the seed,
        the environment and that number.
        """
        self.episode_count[ids] += 1
        episode, difficulty = self.episode_count[ids], self.difficulty
        *drawn, (posture, *start) = self._draws.draw(ids, episode, difficulty)
        for part, values in zip(self._taking, drawn, strict=False):
            part.take(ids, *values)
        if self.config.randomization.changes_physics:
            self.engine.set_parameters(ids, PhysicsParameters(*drawn[-1]))
        self.decoder.reset(ids, posture, checked=True)
        self.engine.reset(ids, posture, *start)
        if self._delay is not None:
            self._delay.restart(ids, posture)
        self.step_count.index_fill_(0, ids, 0)
        self.episode_difficulty.index_fill_(0, ids, difficulty)
        self.episodes.begin(ids, self.object_height()[ids])
        self.last_action.index_fill_(0, ids, 0.0)

    @override
    def state_dict(self) -> dict[str, Tensor]:
        state = {name: getattr(self, name) for name in _OWN_STATE}
        state |= {f"engine.{key}": value for key, value in self.engine.state_dict().items()}
        state |= {f"decoder.{key}": value for key, value in self.decoder.state_dict().items()}
        state |= self._parts.state_dict()
        return {name: value.clone() for name, value in state.items()}

    @override
    def load_state_dict(self, state: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> None:
        for name in _OWN_STATE:
            getattr(self, name).copy_(state[name])
        self.diverged.fill_(False)
        self.engine.load_state_dict(_under("engine.", state))
        self.decoder.load_state_dict(_under("decoder.", state))
        self._parts.load_state_dict({name: state[name] for name in self._parts.state_dict()})
        everywhere = torch.arange(self.num_envs, device=self.device)
        self.images.begin(everywhere, self.episode_count)
        if self._sensors is not None:
            self._sensors.expose()
        self.write_observations(out)
        if self._sensors is not None:
            self._sensors.show_images(out)

    @override
    def telemetry(self, index: int) -> dict[str, Tensor]:
        engine = self.engine
        pose = torch.cat((engine.object_position[index], engine.object_quaternion[index]))
        return {
            "joint_position": engine.joint_position[index].clone(),
            "joint_velocity": engine.joint_velocity[index].clone(),
            "joint_target": self.decoder.target[index].clone(),
            "object_pose": pose,
            "goal": self.goal[index].clone(),
        }

    @override
    def timings(self) -> dict[str, float]:
        return self.engine.timings()

    @override
    def close(self) -> None:
        self.engine.close()


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    own = [key for key in state if key.startswith(prefix)]
    return {key.removeprefix(prefix): state[key] for key in own}
