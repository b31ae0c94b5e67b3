"""Small policies and their bundles, for tests of what reads and writes bundles."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dexgrasp_learner.commands.export import write_bundle
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.policy import Actor, build_actor
from dexgrasp_learner.storage.bundle import read_manifest, read_vectors, seal_manifest
from dexgrasp_learner.storage.origin import Origin
from dexgrasp_sim.config import parse_config, to_dict
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.tasks.grasp.observations import grasp_specs

STEPS = 20
SMALL = NetworkConfig(
    actor_groups=("proprio", "depth"),
    memory="lstm",
    memory_size=8,
    hidden=(16,),
    fused_size=16,
    auxiliary_group="object",
)


Specs = dict[str, TensorSpec]


def make_policy(network: NetworkConfig, **task: dict[str, Any]) -> tuple[Actor, Specs, RunConfig]:
    """A random policy whose actions depend visibly on what it sees, for the task with changes."""
    config = parse_config(RunConfig, {"network": to_dict(network), "task": task})
    found = grasp_specs(to_dict(config.task), config.groups)
    specs = {spec.name: spec for spec in found.observation_specs}
    actor = build_actor(network, specs, found.action_dim, seed=3, view=config.table_view)
    with torch.no_grad():
        list(actor.head.parameters())[-2].mul_(60.0)  # the weights of the last layer
    return actor.eval(), specs, config


def random_observations(
    specs: Mapping[str, TensorSpec], groups: Iterable[str], steps: int = STEPS
) -> dict[str, Tensor]:
    """Group to [steps, *shape]."""
    generator = torch.Generator().manual_seed(1)
    observations = {}
    for name in groups:
        spec = specs[name]
        if spec.dtype == "float32":
            observations[name] = torch.randn(steps, *spec.shape, generator=generator)
        else:
            high = 1000 if spec.dtype == "int16" else 256
            values = torch.randint(0, high, (steps, *spec.shape), generator=generator)
            observations[name] = values.to(spec.torch_dtype)
    return observations


def write(
    folder: Path, network: NetworkConfig = SMALL, **task: dict[str, Any]
) -> tuple[Actor, Specs, dict[str, Tensor]]:
    """Writes a bundle; returns its policy, the specs and the observations in its vectors."""
    actor, specs, config = make_policy(network, **task)
    recorded = random_observations(specs, actor.groups)
    write_bundle(folder, actor, specs, config, recorded, Origin(commit="c0ffee"))
    return actor, specs, recorded


def write_teachers(parent: Path) -> None:
    """Bundles `state` and `depth` of small random policies, named after what they read."""
    write(parent / "state", NetworkConfig(actor_groups=("proprio", "state"), hidden=(16,)))
    depth = NetworkConfig(actor_groups=("proprio", "depth"), hidden=(16,), fused_size=16)
    write(parent / "depth", depth)


def manifest_values(folder: Path) -> dict[str, Any]:
    """What `seal_manifest` takes, to write a manifest with the right hashes over changed files."""
    manifest = read_manifest(folder)
    sealed = ("schema_version", "files", "bundle_id")
    fields = [field.name for field in dataclasses.fields(manifest) if field.name not in sealed]
    return {name: getattr(manifest, name) for name in fields}


def rewrite_vectors(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Changes the test vectors of a bundle whose hashes then fit again."""
    values = manifest_values(folder)
    vectors = read_vectors(folder / "test_vectors.npz")
    np.savez(folder / "test_vectors.npz", **change(vectors))
    seal_manifest(folder, values)
