"""The figures of an evaluation, with their uncertainty, as a table and as plain values."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from dexgrasp_learner.evaluation.episode_statistics import episode_means
from dexgrasp_learner.evaluation.phases import failures

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Figures:
    """Figures over some episodes.

    Attributes:
        success_rate: Fraction that ended with the object in the goal region, held and in the hand.
        success_low: Lower end of the 95 % confidence interval of the rate (Wilson).
        success_high: Its upper end.
        time_to_goal_s: Mean time at which the object first reached the goal region, over the
            episodes in which it did; None if there are none.
        drop_rate: Fraction in which the object was lifted and lost again.
        in_goal_region_fraction: Fraction of all steps in which the object was in the goal region.
            The paper's tables call this success rate; it is smaller than `success_rate` because
            it includes the time to get there.
        failures: By phase in which they ended, the number of episodes without success; see
            `PHASES`.
    """

    episodes: int
    success_rate: float
    success_low: float
    success_high: float
    time_to_goal_s: float | None
    drop_rate: float
    in_goal_region_fraction: float
    failures: dict[str, int]


@dataclass(frozen=True)
class Evaluation(Figures):
    """Figures over episodes that all ran to their end, one per environment.

    Attributes:
        policy: Name of the policy.
        objects: How many objects the task has; the episodes are spread evenly over them.
        difficulty: Difficulty of the task's schedules, 0 to 1.
        max_lift_m: Mean over episodes of the greatest height above the start.
        episode_return: Mean sum of rewards.
        per_object: By name, of the objects that had an episode.
        seed: Of the episodes' starts.
        diverged: Episodes in which the physics failed; they count as failures, in the phase that
            the figures until then say.
    """

    policy: str
    objects: int
    difficulty: float
    max_lift_m: float
    episode_return: float
    per_object: dict[str, Figures]
    seed: int
    diverged: int

    def record(self) -> dict[str, float]:
        """For the metrics of a run, `evaluation/...`; NaN where no episode reached the goal."""
        entry_s = self.time_to_goal_s
        return {
            "evaluation/success_rate": self.success_rate,
            "evaluation/time_to_goal_s": math.nan if entry_s is None else entry_s,
            "evaluation/drop_rate": self.drop_rate,
            "evaluation/in_goal_region_fraction": self.in_goal_region_fraction,
        }


@dataclass(frozen=True)
class Assessment:
    """A policy on one set of objects, with its control experiment.

    Attributes:
        source: The policy as the user named it.
        object_set: Name of the set of objects, or their names; "" for those of its own task.
        own: With its own images.
        swapped: With those of another environment in the same episodes; None for policies that
            see none, or where it was left out.
    """

    source: str
    object_set: str
    own: Evaluation
    swapped: Evaluation | None = None

    @property
    def name(self) -> str:
        """For tables: the policy, and the objects if they are not its own."""
        return f"{self.own.policy}, {self.object_set}" if self.object_set else self.own.policy

    def record(self) -> dict[str, Any]:
        """Plain values: those of `own` at the top, `swapped` under `swapped_images`."""
        swapped = None if self.swapped is None else asdict(self.swapped)
        outer = {"source": self.source, "object_set": self.object_set}
        return {**asdict(self.own), **outer, "swapped_images": swapped}


def summarize(
    policy: str,
    rows: Tensor,
    fields: Sequence[str],
    object_names: Sequence[str],
    difficulty: float,
    seed: int,
    diverged: int = 0,
) -> Evaluation:
    """Computes an evaluation from episodes.

    Args:
        policy: Name.
        rows: [K, E], K at least 1.
        fields: Names of the columns; those of the grasping task and `phases.NEAREST`.
        object_names: Of the task's objects, in its order.
        difficulty: See `Evaluation`.
        seed: See `Evaluation`.
        diverged: See `Evaluation`.
    """
    index = rows[:, fields.index("object")]
    per_object = {
        name: Figures(**_figures(rows[index == number], fields))
        for number, name in enumerate(object_names)
        if (index == number).any()
    }
    means = episode_means(rows, fields)
    return Evaluation(
        **_figures(rows, fields),
        policy=policy,
        objects=len(object_names),
        difficulty=difficulty,
        max_lift_m=round(means["max_lift_m"], 4),
        episode_return=round(means["return"], 4),
        per_object=per_object,
        seed=seed,
        diverged=diverged,
    )


def _figures(rows: Tensor, fields: Sequence[str]) -> dict[str, Any]:
    means, episodes = episode_means(rows, fields), len(rows)
    low, high = success_interval(round(means["success"] * episodes), episodes)
    entry_s = means["time_to_goal_s"]
    return {
        "episodes": episodes,
        "success_rate": round(means["success"], 4),
        "success_low": round(low, 4),
        "success_high": round(high, 4),
        "time_to_goal_s": None if math.isnan(entry_s) else round(entry_s, 3),
        "drop_rate": round(means["drop_rate"], 4),
        "in_goal_region_fraction": round(means["in_goal_region"], 4),
        "failures": failures(rows, fields),
    }


def success_interval(successes: int, episodes: int) -> tuple[float, float]:
    """The 95 % confidence interval of a rate by Wilson's score, also valid at rates 0 and 1."""
    from scipy.stats import binomtest  # takes a second to import

    test = binomtest(successes, episodes)
    interval = test.proportion_ci(confidence_level=_CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def as_text(result: Evaluation) -> str:
    """The figures as a readable table."""
    counts = sorted({figures.episodes for figures in result.per_object.values()})
    each = " or ".join(map(str, counts))
    without = result.objects - len(result.per_object)
    width = max(map(len, [*result.per_object, "object"]))
    failed = ", ".join(f"{phase} {count}" for phase, count in result.failures.items())
    lines = [
        f"{result.policy}: {result.success_rate:.3f} of {result.episodes} episodes succeed "
        f"(95 % interval {result.success_low:.3f} to {result.success_high:.3f}) "
        f"at difficulty {result.difficulty:g}",
        f"  mean highest lift {result.max_lift_m:.3f} m, return {result.episode_return:.3f}; "
        f"episodes spread evenly over {result.objects} objects, {each} each"
        + (f", {without} without one" if without else "")
        + (f"; physics failed in {result.diverged}" if result.diverged else ""),
        f"  failed episodes by the phase in which they ended: {failed}",
        f"  {'object':<{width}}  episodes  success   95 % interval  dropped  to goal  in region",
        *(_line(name, figures, width) for name, figures in result.per_object.items()),
        _line("all", result, width),
    ]
    return "\n".join(lines)


def as_table(assessments: Sequence[Assessment]) -> str:
    """One line per policy and set of objects, for several of them."""
    width = max(len("policy"), *(len(item.name) for item in assessments))
    header = f"{'policy':<{width}}  episodes  success   95 % interval  dropped  to goal  swapped"
    rows = [
        f"{item.name:<{width}}  {item.own.episodes:>8}  {item.own.success_rate:>7.3f}  "
        f"{item.own.success_low:.3f} to {item.own.success_high:.3f}  {item.own.drop_rate:>7.3f}  "
        f"{_to_goal(item.own):>7}  {_swapped(item):>7}"
        for item in assessments
    ]
    return "\n".join([header, *rows])


def _swapped(assessment: Assessment) -> str:
    return "" if assessment.swapped is None else f"{assessment.swapped.success_rate:.3f}"


def _to_goal(figures: Figures) -> str:
    return "never" if figures.time_to_goal_s is None else f"{figures.time_to_goal_s:.2f} s"


def _line(name: str, figures: Figures, width: int) -> str:
    return (
        f"  {name:<{width}}  {figures.episodes:>8}  {figures.success_rate:>7.3f}  "
        f"{figures.success_low:.3f} to {figures.success_high:.3f}  {figures.drop_rate:>7.3f}  "
        f"{_to_goal(figures):>7}  {figures.in_goal_region_fraction:>9.3f}"
    )
