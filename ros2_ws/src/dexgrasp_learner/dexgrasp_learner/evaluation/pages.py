"""What pages and cards about policies share: their templates, and words for what is measured."""

from jinja2 import ChoiceLoader, Environment, PackageLoader, select_autoescape

from dexgrasp_learner.evaluation.phases import LIFTED_M, NEAR_M
from dexgrasp_sim.tasks.grasp.episodes import SuccessConfig

PHASE_TEXTS = {
    "reach": f"the hand never came within {100 * NEAR_M:g} cm of the object",
    "grasp": f"it did, and the object was never lifted by {100 * LIFTED_M:g} cm",
    "lift": "it was lifted and never got to the goal region",
    "hold": "it got there and was not held to the end",
}
"""What a phase of `phases.PHASES` means for a failed episode."""


def page_templates(*others: PackageLoader) -> Environment:
    """Templates of pages, which escape all text; `others` come first."""
    loaders = [*others, PackageLoader("dexgrasp_learner", "templates")]
    environment = Environment(loader=ChoiceLoader(loaders), autoescape=select_autoescape())
    environment.globals["phases"] = PHASE_TEXTS
    return environment


def success_in_words(rule: SuccessConfig) -> str:
    """When an episode succeeds, as a sentence."""
    if rule.goal_radius_m is None:
        where = f"is more than {100 * rule.height_m:g} cm above the table"
    else:
        where = f"is within {100 * rule.goal_radius_m:g} cm of the goal"
    return (
        f"An episode succeeds when the object {where} during the last {rule.hold_s:g} s and in "
        "the hand at the end."
    )
