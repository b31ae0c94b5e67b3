"""The places of a run's tensors in its memory-mapped file."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import torch

from dexgrasp_sim.specs import TensorSpec, schema_hash
from dexgrasp_sim.transport.protocol import ProtocolError
from dexgrasp_sim.vec_env import EVERY_EPISODE, EnvSpecs, result_specs

ALIGNMENT = 64
"""Bytes: a cache line, and the alignment that vector instructions and DMA engines need."""

_VALID = TensorSpec("valid", (), "bool")
"""Whether a slot is the result of the action before it.

It is False if the environment or its worker had to start again. Then `reward` and `episode` are 0,
`truncated` is set, and the observation is the first one of a new episode.
"""

RESULT_NAMES = tuple(spec.name for spec in (*result_specs(EVERY_EPISODE), _VALID))

COUNTERS = (
    "pid",
    "state",
    "steps",
    "episodes",
    "newest_episode",
    "resets_not_finite",
    "policy_version",
    "slot",
    "view_sequence",
)
"""Columns of `telemetry.counters`, one int64 row per worker."""

SECONDS = ("simulating", "rendering", "waiting", "view_time_s")
"""Columns of `telemetry.seconds`, one float64 row per worker; the last is a monotonic time."""


@dataclass(frozen=True)
class Block:
    """One tensor inside the file: `offset` is in bytes from the start of the data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def torch_dtype(self) -> torch.dtype:
        """The element type in torch; both libraries call the types used here by one name."""
        return getattr(torch, self.dtype)


def place(entries: Iterable[tuple[str, str, Sequence[int]]]) -> tuple[Block, ...]:
    """Places tensors (name, dtype, shape) one after the other, each from a new cache line on.

    Raises:
        ValueError: Two tensors of the same name, or a tensor without elements.
    """
    blocks: dict[str, Block] = {}
    offset = 0
    for name, dtype, shape in entries:
        block = Block(name, dtype, tuple(shape), offset)
        if name in blocks:
            raise ValueError(f"two tensors are called {name!r}; rename the observation group")
        if block.nbytes == 0:
            raise ValueError(f"tensor {name!r} of shape {block.shape} has no elements")
        blocks[name] = block
        offset = round_up(offset + block.nbytes)
    return tuple(blocks.values())


def round_up(size: int, multiple: int = ALIGNMENT) -> int:
    """The smallest multiple of `multiple` that is at least `size`; in bytes."""
    return -(-size // multiple) * multiple


def split_envs(num_envs: int, num_workers: int) -> tuple[tuple[int, int], ...]:
    """Slices [start, stop) of the environments, as equal as can be, the larger ones first.

    Raises:
        ValueError: There are fewer environments than workers, or no worker.
    """
    if not 1 <= num_workers <= num_envs:
        raise ValueError(
            f"{num_envs} environments cannot be split over {num_workers} workers: "
            "give every worker at least one environment"
        )
    share, rest = divmod(num_envs, num_workers)
    starts = [index * share + min(index, rest) for index in range(num_workers + 1)]
    return tuple(pairwise(starts))


@dataclass(frozen=True)
class RunLayout:
    """The tensors of a run, determined by these attributes.

    Attributes:
        specs: Observations, results and actions of an environment.
        horizon: Steps per rollout, T.
        slices: Environments [start, stop) of each worker; together 0..N without a gap.
    """

    specs: EnvSpecs
    horizon: int
    slices: tuple[tuple[int, int], ...]

    @property
    def observation_specs(self) -> tuple[TensorSpec, ...]:
        """Observation groups, without the environment axis."""
        return self.specs.observation_specs

    @cached_property
    def result_specs(self) -> tuple[TensorSpec, ...]:
        """Specs of the other tensors that environments write, named `RESULT_NAMES`."""
        return (*self.specs.result_specs, _VALID)

    @property
    def num_envs(self) -> int:
        """Environments of all workers, N."""
        return self.slices[-1][1]

    @property
    def num_workers(self) -> int:
        """Workers, W."""
        return len(self.slices)

    @cached_property
    def schema_hash(self) -> str:
        """Hash of an environment's specs; processes with equal hashes can share tensors."""
        specs = self.specs
        return rollout_schema_hash(specs.observation_specs, specs.action_dim, specs.episode_fields)

    @cached_property
    def rollout_blocks(self) -> tuple[Block, ...]:
        """Observations and results [T+1, N, ...], actions [T, N, A], sequence [T+1, W]."""
        slots, envs = self.horizon + 1, self.num_envs
        return place(
            [
                *((s.name, s.dtype, (slots, envs, *s.shape)) for s in self.observation_specs),
                *((s.name, s.dtype, (slots, envs, *s.shape)) for s in self.result_specs),
                ("actions", "float32", (self.horizon, envs, self.specs.action_dim)),
                ("sequence", "int64", (slots, self.num_workers)),
            ]
        )

    @cached_property
    def telemetry_blocks(self) -> tuple[Block, ...]:
        """One row per worker, written by that worker only, and two shared numbers.

        `telemetry.watched`, written by observers, is 1 + the index of the shown environment, or 0
        (as in new memory) for none. `control.difficulty`, 0 to 1, is the difficulty of coming
        episodes; the learner writes it between rollouts, workers read it before each step.
        """
        workers = self.num_workers
        blocks = place(
            [
                ("telemetry.counters", "int64", (workers, len(COUNTERS))),
                ("telemetry.seconds", "float64", (workers, len(SECONDS))),
                ("telemetry.watched", "int64", (1,)),
                ("control.difficulty", "float64", (1,)),
                ("view.env", "int64", (workers, 1)),
                *((f"view.{s.name}", s.dtype, (workers, *s.shape)) for s in self.specs.view_specs),
            ]
        )
        last = self.rollout_blocks[-1]
        first = round_up(last.offset + last.nbytes)
        return tuple(Block(b.name, b.dtype, b.shape, first + b.offset) for b in blocks)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All tensors in the order of their offsets."""
        return self.rollout_blocks + self.telemetry_blocks

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors with the gaps between them."""
        return round_up(self.blocks[-1].offset + self.blocks[-1].nbytes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the offsets for an attaching process to check."""
        return {
            "observation_specs": [spec.to_dict() for spec in self.observation_specs],
            "action_dim": self.specs.action_dim,
            "control_dt_s": self.specs.control_dt_s,
            "episode_fields": self.specs.episode_fields,
            "view_specs": [spec.to_dict() for spec in self.specs.view_specs],
            "horizon": self.horizon,
            "slices": self.slices,
            "schema_hash": self.schema_hash,
            "blocks": [[b.name, b.dtype, b.shape, b.offset] for b in self.blocks],
        }

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "RunLayout":
        """The inverse of `to_dict`.

        Raises:
            ProtocolError: This code places the tensors differently from the code that wrote
                `values`, so the two must not share memory.
        """
        specs = EnvSpecs(
            observation_specs=tuple(map(TensorSpec.from_dict, values["observation_specs"])),
            action_dim=values["action_dim"],
            control_dt_s=values["control_dt_s"],
            episode_fields=tuple(values["episode_fields"]),
            view_specs=tuple(map(TensorSpec.from_dict, values["view_specs"])),
        )
        slices = tuple((start, stop) for start, stop in values["slices"])
        layout = RunLayout(specs, values["horizon"], slices)
        written = json.loads(json.dumps(values["blocks"]))
        if json.loads(json.dumps(layout.to_dict()["blocks"])) != written:
            raise ProtocolError(
                f"the run's tensors (schema {values['schema_hash']}) are placed differently by "
                f"this interpreter's dexgrasp_sim (schema {layout.schema_hash}); install the same "
                "version of dexgrasp for the learner and for its workers"
            )
        return layout


def rollout_schema_hash(
    observation_specs: Sequence[TensorSpec], action_dim: int, episode_fields: Sequence[str]
) -> str:
    """Hash over observations, results and actions of one environment; 16 hexadecimal digits."""
    action_spec = TensorSpec("actions", (action_dim,))
    return schema_hash([*observation_specs, *result_specs(episode_fields), _VALID, action_spec])
