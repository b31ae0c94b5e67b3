"""Environments without physics and with known outputs, for tests and transport benchmarks.

After s steps, element i of an observation of environment e is `base(seed, e, i) + s % 127` in
the arithmetic of its data type, so that a wrong slot, environment, order or seed is detected.
"""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor
from typing_extensions import override

from dexgrasp_sim.config import STRICT, ConfigError, parse_config
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.vec_env import EVERY_EPISODE, EnvSpecs, VecEnv

_STEP_PERIOD = 127  # a prime, so that no rollout length hides a slot mix-up; fits a byte
_EPISODE_FIELDS = (*EVERY_EPISODE, "object")
_VIEW_SPECS = (
    TensorSpec("joint_position", (23,), unit="rad"),
    TensorSpec("joint_velocity", (23,), unit="rad/s"),
    TensorSpec("object_pose", (7,), unit="m, quaternion wxyz", frame="base"),
    TensorSpec("goal", (3,), unit="m", frame="base"),
)
"""Those of the grasp task, to test nodes and viewers without physics."""


@dataclass(frozen=True, config=STRICT)
class SyntheticGroup:
    """One observation group: shape for one environment, and data type."""

    shape: tuple[PositiveInt, ...]
    dtype: Literal["float32", "float16", "uint8", "int16", "int64", "bool"] = "float32"


@dataclass(frozen=True, config=STRICT)
class SyntheticConfig:
    """A synthetic environment.

    Attributes:
        observations: Groups by name.
        action_dim: Length of an action.
        control_dt_s: Nominal control period.
        episode_length: Steps; environment e has e % 3 more, so that ends do not coincide.
        step_s: Seconds that a step sleeps.
        idle: A step only copies the first observations again; rewards and flags do not change and
            no episode ends. Benchmarks then measure the transport only.
        fault: A fault to test learners with: an exception, an exit without a message, SIGKILL, an
            endless step, or other observations than `synthetic_specs` says.
        fault_step: Steps before the fault.
        fault_env: Global index of the environment whose worker has the fault.
        nan_every: Every so many steps, observations and reward of environment `fault_env` are NaN;
            0: never.
    """

    observations: dict[str, SyntheticGroup] = field(
        default_factory=lambda: {"state": SyntheticGroup(shape=(8,))}
    )
    action_dim: PositiveInt = 4
    control_dt_s: PositiveFloat = 0.1
    episode_length: PositiveInt = 5
    step_s: float = Field(default=0.0, ge=0.0)
    idle: bool = False
    fault: Literal["none", "raise", "exit", "kill", "hang", "schema"] = "none"
    fault_step: PositiveInt = 3
    fault_env: int = Field(default=0, ge=0)
    nan_every: int = Field(default=0, ge=0)


class FaultError(RuntimeError):
    """The exception of the fault `raise`."""


def synthetic_specs(config: Mapping[str, Any], groups: Sequence[str]) -> EnvSpecs:
    """The specs of a synthetic environment.

    Raises:
        ConfigError: A value of `config` is not allowed, or a group is not among its observations.
    """
    parsed = parse_config(SyntheticConfig, dict(config), source="synthetic environment")
    unknown = [name for name in groups if name not in parsed.observations]
    if unknown:
        raise ConfigError(
            f"observation groups {unknown} are not among {[*parsed.observations]}; "
            "add them to the synthetic environment's `observations`"
        )
    chosen = {name: parsed.observations[name] for name in groups}
    specs = tuple(TensorSpec(name, group.shape, group.dtype) for name, group in chosen.items())
    return EnvSpecs(specs, parsed.action_dim, parsed.control_dt_s, _EPISODE_FIELDS, _VIEW_SPECS)


def expected_observation(spec: TensorSpec, seed: int, env: int, steps: int) -> Tensor:
    """The observation of environment `env` (global index) after `steps` steps, spec.shape."""
    base = _base(spec, seed, env)
    return base ^ bool(steps % 2) if spec.dtype == "bool" else base + steps % _STEP_PERIOD


def _base(spec: TensorSpec, seed: int, env: int) -> Tensor:
    """Small integers that differ between groups, seeds, environments and elements."""
    first = 31 * seed + 17 * env + sum(spec.name.encode())
    numbers = torch.arange(first, first + spec.empty().numel()) % 251
    if spec.dtype == "bool":
        numbers = numbers % 2
    return numbers.view(spec.shape).to(spec.torch_dtype)


class SyntheticEnv(VecEnv):
    """N synthetic environments."""

    def __init__(
        self,
        config: Mapping[str, Any],
        num_envs: int,
        seed: int,
        threads: int,
        groups: Sequence[str],
        env_offset: int = 0,
        device: str = "cpu",
    ) -> None:
        """Arguments and errors as for `environments.make_env`; `threads` is not used."""
        del threads
        specs = synthetic_specs(config, groups)
        self._config = parse_config(SyntheticConfig, dict(config))
        self.num_envs = num_envs
        self.action_dim = specs.action_dim
        self.control_dt_s = specs.control_dt_s
        self.observation_specs = specs.observation_specs
        self.episode_fields = specs.episode_fields
        self._faulty = 0 <= self._config.fault_env - env_offset < num_envs
        if self._faulty and self._config.fault == "schema":
            self.observation_specs += (TensorSpec("unexpected", (1,)),)
        self._envs = torch.arange(env_offset, env_offset + num_envs, device=device)
        self._base = {
            s.name: torch.stack([_base(s, seed, env) for env in self._envs.tolist()]).to(device)
            for s in specs.observation_specs
        }
        self._lengths = self._config.episode_length + self._envs % 3
        self.difficulty = 0.0
        self._step_seconds = 0.0
        self._steps = torch.zeros((), dtype=torch.int64)
        self._episode_steps = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self._returns = torch.zeros(num_envs, device=device)
        self.episode_count = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self.diverged = torch.zeros(num_envs, dtype=torch.bool, device=device)

    @override
    def reset(self, out: Mapping[str, Tensor], first_episode: int = 0) -> None:
        self.episode_count.fill_(first_episode + 1)
        self._steps.zero_()
        self._episode_steps.zero_()
        self._returns.zero_()
        for name in ("reward", "terminated", "truncated", "episode"):
            out[name].zero_()
        self._observe(out)

    @override
    def reset_envs(self, env_ids: Tensor, out: Mapping[str, Tensor]) -> None:
        """See `VecEnv.reset_envs`. Observations still depend on the steps since `reset`."""
        self.episode_count[env_ids] += 1
        self._episode_steps[env_ids] = 0
        self._returns[env_ids] = 0.0
        self._observe(out)

    @override
    def step(self, actions: Tensor, out: Mapping[str, Tensor]) -> None:
        """See `VecEnv.step`. The reward is the first element of the clamped action.

        Environments with an even global index terminate, the others are truncated.
        """
        begin_s = time.perf_counter()
        self._steps += 1
        if self._faulty and self._steps == self._config.fault_step:
            self._fail()
        if self._config.step_s > 0:
            time.sleep(self._config.step_s)
        if not self._config.idle:
            self._act(actions, out)
        self._observe(out)
        if self._faulty and self._config.nan_every and self._steps % self._config.nan_every == 0:
            self._spoil(out)
        self._step_seconds += time.perf_counter() - begin_s

    def _act(self, actions: Tensor, out: Mapping[str, Tensor]) -> None:
        """Writes rewards and flags and ends episodes."""
        out["reward"].copy_(actions[:, 0].clamp(-1.0, 1.0))
        self._returns += out["reward"]
        self._episode_steps += 1
        ended = self._episode_steps == self._lengths
        torch.logical_and(ended, self._envs % 2 == 0, out=out["terminated"])
        torch.logical_and(ended, self._envs % 2 == 1, out=out["truncated"])
        self._end_episodes(ended, out["episode"])

    @override
    def state_dict(self) -> dict[str, Tensor]:
        return {
            "steps": self._steps.clone(),
            "episode_steps": self._episode_steps.clone(),
            "returns": self._returns.clone(),
            "episode_count": self.episode_count.clone(),
        }

    @override
    def load_state_dict(self, state: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> None:
        self._steps.copy_(state["steps"])
        self._episode_steps.copy_(state["episode_steps"])
        self._returns.copy_(state["returns"])
        self.episode_count.copy_(state["episode_count"])
        self._observe(out)

    @override
    def set_difficulty(self, difficulty: float) -> None:
        """Stores the difficulty, which changes nothing; tests read it."""
        self.difficulty = difficulty

    @override
    def telemetry(self, index: int) -> dict[str, Tensor]:
        """See `VecEnv.telemetry`. Every number is the environment's global index."""
        env = float(self._envs[index])
        return {spec.name: torch.full(spec.shape, env) for spec in _VIEW_SPECS}

    @override
    def timings(self) -> dict[str, float]:
        return {"physics": self._step_seconds, "render": 0.0}

    @override
    def close(self) -> None:
        """Nothing to free."""

    def _observe(self, out: Mapping[str, Tensor]) -> None:
        steps = int(self._steps)
        for name, base in self._base.items():
            if self._config.idle:
                out[name].copy_(base)
            elif base.dtype == torch.bool:
                torch.logical_xor(base, base.new_tensor(steps % 2 == 1), out=out[name])
            else:
                torch.add(base, steps % _STEP_PERIOD, out=out[name])

    def _end_episodes(self, ended: Tensor, episode: Tensor) -> None:
        """Fills the rows of ended episodes, zeroes the others."""
        figures = {
            "return": self._returns,
            "length": self._episode_steps,
            "success": self._returns > 0,
            "object": self._envs,
            "whole": torch.ones_like(ended),
        }
        episode.zero_()
        for name, value in figures.items():
            episode[:, _EPISODE_FIELDS.index(name)] = value
        episode.mul_(ended.unsqueeze(1))
        self.episode_count += ended
        self._returns.masked_fill_(ended, 0.0)
        self._episode_steps.masked_fill_(ended, 0)

    def _spoil(self, out: Mapping[str, Tensor]) -> None:
        row = self._config.fault_env - int(self._envs[0])
        floats = [s.name for s in self.observation_specs if s.torch_dtype.is_floating_point]
        for name in ("reward", *floats):
            out[name][row] = torch.nan

    def _fail(self) -> None:
        fault = self._config.fault
        if fault == "raise":
            raise FaultError(f"fault on request at step {int(self._steps)}")
        if fault == "exit":
            os._exit(7)
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        while fault == "hang":
            time.sleep(1.0)
