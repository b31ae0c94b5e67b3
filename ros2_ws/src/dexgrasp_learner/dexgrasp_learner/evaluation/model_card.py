"""The model card of a bundle: what a stranger must know before using a policy."""

from collections.abc import Sequence
from pathlib import Path

from dexgrasp_learner.evaluation.figures import Assessment
from dexgrasp_learner.evaluation.pages import page_templates, success_in_words
from dexgrasp_learner.storage.bundle import CURVE_FILE, BundleManifest
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.observations import GROUPS, Source, image_groups

_LISTED = 12
"""So many objects, the hardest, stand in a card."""
_WORDS = {
    "proprio": "its own joints",
    "depth": "one depth camera",
    "stereo_rgb": "a stereo pair of colour cameras",
    "state": "the true pose and shape of the object, which only a simulation knows",
}


def model_card(folder: Path, manifest: BundleManifest, assessments: Sequence[Assessment]) -> str:
    """The card in Markdown; it does not depend on where the bundle is.

    Args:
        folder: Where its files are.
        manifest: What the bundle holds.
        assessments: What was measured with it; the per-object table is of the first.
    """
    task = manifest.task
    per_object = sorted(
        assessments[0].own.per_object.items() if assessments else (),
        key=lambda item: item[1].success_rate,
    )
    templates = page_templates()
    templates.trim_blocks = templates.lstrip_blocks = True
    templates.filters["cell"] = _cell
    return templates.get_template("MODEL_CARD.md").render(
        name=_cell(str(manifest.training.get("name", "policy"))),
        summary=_summary(manifest),
        assessments=assessments,
        success_rule=success_in_words(task.success),
        hardest=per_object[:_LISTED],
        hardest_only=len(per_object) > _LISTED,
        origin=manifest.origin,
        training=manifest.training,
        has_curve=(folder / CURVE_FILE).is_file(),
        robot=manifest.robot.name,
        joints=len(manifest.robot.joint_names),
        groups=", ".join(
            f"`{spec.name}` {'x'.join(map(str, spec.shape))}" for spec in manifest.groups
        ),
        actions=len(manifest.action_names),
        memory=f"{manifest.memory_shape[2]} cells" if manifest.memory_shape[2] else "",
        object_sources=manifest.objects.in_words,
        task=task,
        sees=_sees(manifest),
        from_scratch=_from_scratch(manifest),
        deploys=_deploys(manifest),
        limits=_limits(manifest),
    )


def _summary(manifest: BundleManifest) -> str:
    senses = " and ".join(_WORDS.get(spec.name, spec.name) for spec in manifest.groups)
    return (
        f"A policy that reaches for an object on a table, grasps it with a hand of "
        f"{len(manifest.task.load_robot().fingers)} fingers and lifts it. It senses {senses}."
    )


def _limits(manifest: BundleManifest) -> list[str]:
    """Sentences that follow from how the task was set."""
    task, sees = manifest.task, _sees(manifest)
    x_m, y_m = (2 * half for half in task.spawn.half_width_m)
    lines = [
        "For research and as a start for further training. It was trained and measured in "
        "simulation only; it has not been tried on a real robot.",
        f"Objects start within {100 * x_m:g} x {100 * y_m:g} cm of the table"
        + (f" at difficulty {task.difficulty:g}" if task.difficulty else "")
        + "; it knows nothing of others beside them, of people, or of obstacles.",
        f"It was trained for the robot {manifest.robot.name} and, where it sees, for the pose and "
        "lens of the camera in the manifest; a bundle is refused on another robot.",
    ]
    lines.append(_ideal(task, sees))
    if not _deploys(manifest):
        lines.append("It reads what no sensor measures: a teacher, not a policy for robots.")
    if sees:
        lines.append(
            "It uses its images as far as the last column of the table says: the nearer that is "
            "to the success, the less."
        )
    return lines


def _sees(manifest: BundleManifest) -> bool:
    return any(spec.name in image_groups() for spec in manifest.groups)


def _from_scratch(manifest: BundleManifest) -> bool:
    """Whether reinforcement learning alone made the policy."""
    settings = manifest.training.get("training", {})
    began_with = settings.get("initial_policy") or settings.get("initial_critic")
    return manifest.origin.algorithm == "PPO" and not began_with


def _deploys(manifest: BundleManifest) -> bool:
    """Whether sensors measure all that it reads."""
    return all(GROUPS[spec.name].source is not Source.NOTHING for spec in manifest.groups)


def _ideal(task: GraspConfig, sees: bool) -> str:
    """What training left ideal; of cameras only where it sees."""
    left = []
    if task.observation_noise.is_off:
        left.append("joint measurements without noise")
    if not (task.latency.delays_observations or task.latency.delays_actions):
        left.append("no latency")
    if not task.randomization.changes_physics:
        left.append("one friction and one mass for each object")
    if sees and not (task.image.depth_noise.enabled or task.image.rgb.enabled):
        left.append("images without noise")
    if sees and not task.image.camera_jitter.enabled:
        left.append("a camera that is exactly in its place")
    if not left:
        return "Noise, latency and physics were randomised; the manifest has the ranges."
    return f"Training was ideal in this: {', '.join(left)}."


def _cell(text: str) -> str:
    """A text that cannot end a cell of a table or begin markup."""
    for character in "\\`*[]<>|":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())
