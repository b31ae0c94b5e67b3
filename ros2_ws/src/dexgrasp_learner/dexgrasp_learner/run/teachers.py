"""Loads the teacher of a distillation and checks that it fits the student."""

from collections.abc import Mapping
from pathlib import Path

from dexgrasp_learner.algorithms.teacher import Coarse, Teacher
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.console import warn
from dexgrasp_learner.storage.bundle import MANIFEST_FILE, load_bundle
from dexgrasp_learner.storage.bundle_policy import BundlePolicy
from dexgrasp_learner.storage.checkpoint import load_actor
from dexgrasp_sim.config import ConfigError, replace
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.observations import GROUPS, Source, all_specs


def load_teacher(path: Path, config: RunConfig) -> Teacher:
    """The policy at `path`, ready to label the steps of a student's run.

    Warns in one line where it sees what no sensor of the student measures.

    Args:
        path: A run, a checkpoint or a bundle.
        config: The student's run.

    Raises:
        ConfigError: There is no usable policy, or it does not fit the student's task.
    """
    if (path / MANIFEST_FILE).exists():
        bundle = load_bundle(path)
        teacher, task = BundlePolicy(bundle), bundle.manifest.task
        specs = {spec.name: spec for spec in bundle.manifest.groups}
    else:
        teacher, run, specs = load_actor(path)
        task = run.task
    check_same_actions(f"--teacher {path}", task, config.task)
    sizes = _smaller_images(path, teacher.groups, specs, task, config.task)
    _warn_of_unseen(path, teacher.groups)
    return Coarse(teacher, sizes) if sizes else teacher


def check_same_actions(policy: str, task: GraspConfig, own: GraspConfig) -> None:
    """Makes sure that an action means the same to a policy and to the policy of this run.

    Args:
        policy: How the user named it.
        task: In which it was trained.
        own: The run's.

    Raises:
        ConfigError: It does not.
    """
    robots = task.load_robot().name, own.load_robot().name
    if robots[0] != robots[1]:
        raise ConfigError(
            f"{policy}: it drives {robots[0]}, this run {robots[1]}; use the same robot for both"
        )
    if task.action_names != own.action_names or task.action.kind != own.action.kind:
        raise ConfigError(
            f"{policy}: its actions are {task.action.kind} "
            f"({', '.join(task.action_names)}), those of this run {own.action.kind} "
            f"({', '.join(own.action_names)}); use the same robot and `task.action` for both"
        )
    if task.action != own.action or task.control_hz != own.control_hz:
        raise ConfigError(
            f"{policy}: its `task.action` or `task.control_hz` differs from this "
            "run's, so that its actions mean something else; use the same for both"
        )


def _smaller_images(
    path: Path,
    groups: tuple[str, ...],
    specs: Mapping[str, TensorSpec],
    task: GraspConfig,
    own: GraspConfig,
) -> dict[str, tuple[int, int]]:
    """Sizes of the teacher's depth images that are smaller than the student's environments'.

    Raises:
        ConfigError: The environments cannot give the teacher what it reads.
    """
    given, sizes = all_specs(own), {}
    for name in groups:
        wanted = specs[name]
        if wanted == given.get(name):
            continue
        if name != "depth":
            raise ConfigError(
                f"--teacher {path}: it reads {_text(wanted)}, the student's task gives "
                f"{_text(given[name]) if name in given else 'none'}; "
                "use the same robot, action, camera and errors of measurement for both"
            )
        height, width = wanted.shape
        sizes[name] = (height, width)
        if height > own.camera.height or width > own.camera.width:
            raise ConfigError(
                f"--teacher {path}: its depth image of {width}x{height} is larger than the "
                f"student's {own.camera.width}x{own.camera.height}; enlarge `task.camera`"
            )
    if "depth" in groups:
        same_size = replace(own.camera, width=task.camera.width, height=task.camera.height)
        if same_size != task.camera:
            raise ConfigError(
                f"--teacher {path}: its camera is elsewhere, or sees another field or range; "
                "only width and height of `task.camera` may differ from the student's"
            )
    return sizes


def _text(spec: TensorSpec) -> str:
    return f"{spec.name!r} of shape {list(spec.shape)}"


def _warn_of_unseen(path: Path, groups: tuple[str, ...]) -> None:
    unseen = [name for name in groups if GROUPS[name].source is Source.NOTHING]
    if unseen:
        warn(
            f"the teacher {path} reads {', '.join(unseen)}, which no sensor measures: where the "
            "student cannot see it, it cannot do the same; a teacher that reads images avoids this"
        )
