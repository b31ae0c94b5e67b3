"""Policies that a user names: a run, a checkpoint, a bundle, or one that needs none of these."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dexgrasp_learner.config import RunConfig, load_run_config
from dexgrasp_learner.evaluation.episodes import (
    PolicyFactory,
    actor_policy,
    evaluate,
    scripted_policy,
    swapping_images,
)
from dexgrasp_learner.evaluation.figures import Evaluation
from dexgrasp_learner.run.assembly import fresh_actor
from dexgrasp_learner.run.selection import EVALUATION_SEED
from dexgrasp_learner.storage.bundle import MANIFEST_FILE, Bundle, load_bundle
from dexgrasp_learner.storage.bundle_policy import BundlePolicy
from dexgrasp_learner.storage.checkpoint import load_actor
from dexgrasp_learner.storage.history import warn_of_changed_files
from dexgrasp_sim.config import ConfigError, with_overrides
from dexgrasp_sim.specs import schema_hash
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.observations import all_specs, image_groups

WITHOUT_RUN = ("scripted", "untrained")
"""Policies that have no config of their own."""


@dataclass(frozen=True)
class Candidate:
    """A policy that can be evaluated.

    Attributes:
        name: For tables.
        source: As the user named it.
        make_policy: See `PolicyFactory`.
        groups: Observation groups that it reads.
        config: The run, of which the task counts; a bundle brings its task only.
        used_seeds: Seeds from which its training, or the choice of its weights, drew episodes.
    """

    name: str
    source: str
    make_policy: PolicyFactory
    groups: tuple[str, ...]
    config: RunConfig
    used_seeds: tuple[int, ...] = ()

    @property
    def sees(self) -> bool:
        """Whether it reads images."""
        return not set(self.groups).isdisjoint(image_groups())

    def evaluate(
        self,
        task: GraspConfig,
        episodes: int,
        seed: int,
        swap_images: bool = False,
        **options: Any,
    ) -> Evaluation:
        """Evaluates it; see `episodes.evaluate` and `swapping_images`.

        Raises:
            ConfigError: The training has used the seed, or images cannot be swapped.
        """
        if seed in self.used_seeds:
            raise ConfigError(
                f"--seed {seed}: {self.source} was trained or chosen on episodes of this seed; "
                "give another one"
            )
        if swap_images and episodes < 2:
            raise ConfigError("--swap-images needs at least --episodes 2, to swap between")
        policy = swapping_images(self.make_policy) if swap_images else self.make_policy
        name = f"{self.name}, swapped images" if swap_images else self.name
        return evaluate(name, policy, task, self.groups, episodes, seed, **options)


def load_candidate(
    source: str, config: Path | None = None, overrides: Sequence[str] = ()
) -> Candidate:
    """Loads the policy that a user names.

    Args:
        source: `scripted`, `untrained`, or the folder of a bundle, a run or a checkpoint.
        config: A file with another task than the policy's own.
        overrides: `a.b=value` strings that change its values.

    Raises:
        ConfigError: There is no policy, or it was made for other observations than the config's;
            also as `load_actor` and `load_bundle`.
    """
    if source in WITHOUT_RUN:
        return _without_run(source, config, overrides)
    if (Path(source) / MANIFEST_FILE).is_file():
        bundle = load_bundle(source)
        candidate = of_bundle(bundle, source)
    else:
        actor, run, _ = load_actor(Path(source))
        used = _used_seeds(run.seed)
        name = Path(source).resolve().name
        candidate = Candidate(name, source, actor_policy(actor), actor.groups, run, used)
    changed = _with_task(candidate, config, overrides)
    warn_of_changed_files(Path(source), changed.config)
    return changed


def of_bundle(bundle: Bundle, source: str) -> Candidate:
    """The policy of a loaded bundle, whose folder is `source`."""
    manifest = bundle.manifest
    policy = BundlePolicy(bundle)
    used = _used_seeds(manifest.training.get("seed", 0))
    name = Path(source).resolve().name
    config = RunConfig(task=manifest.task)
    return Candidate(name, source, actor_policy(policy), policy.groups, config, used)


def _used_seeds(seed: int) -> tuple[int, ...]:
    return (seed, EVALUATION_SEED + seed)


def _without_run(source: str, path: Path | None, overrides: Sequence[str]) -> Candidate:
    if overrides and not path:
        raise ConfigError(f"--set {overrides[0]}: changes a value of --config; give one")
    config = load_run_config(path, list(overrides)) if path else RunConfig()
    if source == "scripted":
        return Candidate(source, source, scripted_policy, (), config)
    actor = fresh_actor(config)
    return Candidate(source, source, actor_policy(actor), actor.groups, config)


def _with_task(candidate: Candidate, path: Path | None, overrides: Sequence[str]) -> Candidate:
    """The policy on another task that gives it the same observations and takes its actions."""
    if not path and not overrides:
        return candidate
    if path:
        config = load_run_config(path, list(overrides))
    else:
        config = with_overrides(candidate.config, overrides)
    if _interface(candidate, config) != _interface(candidate, candidate.config):
        given = f"--config {path}" if path else "--set"
        raise ConfigError(
            f"{given}: {candidate.source} was trained for other observations; use the camera and "
            "the action of the run's config.yaml"
        )
    used, groups = candidate.used_seeds, candidate.groups
    return Candidate(candidate.name, candidate.source, candidate.make_policy, groups, config, used)


def _interface(candidate: Candidate, config: RunConfig) -> tuple[str, tuple[str, ...]]:
    specs = all_specs(config.task)
    return schema_hash([specs[name] for name in candidate.groups]), config.task.action_names
