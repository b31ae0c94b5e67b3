"""Which weights a run exports."""

from pathlib import Path

import pytest
import torch

from dexgrasp_learner.config import load_run_config
from dexgrasp_learner.evaluation.episodes import evaluate_actor
from dexgrasp_learner.run.assembly import fresh_actor
from dexgrasp_learner.run.selection import Choice, Selection
from dexgrasp_sim.config import replace

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("restore_torch")]

SMOKE = Path(__file__).parents[4] / "config" / "smoke.yaml"
OVERRIDES = [
    "network.actor_groups=[proprio, state]",
    "network.auxiliary_group=null",
    "training.evaluation_episodes=3",
    "training.confirmation_episodes=5",
    "training.averaging_decay=0.75",
    # episodes of one step, in which the object is high enough while it still falls
    "task.control_hz=240",
    "task.physics.timestep_s=0.004166666666666667",
    "task.episode_s=0.004166666666666667",
    "task.success.height_m=0.001",
    "task.success.hold_s=0.001",
]
EASY = "task.success.reach_m=20"
IMPOSSIBLE = "task.success.reach_m=0.001"


def make(reach: str):
    config = load_run_config(SMOKE, [*OVERRIDES, reach])
    actor = fresh_actor(config)
    return config, actor, Selection(actor, config.training, config.seed)


def fill(actor, value):
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.fill_(value)


def values(actor):
    return {round(parameter.mean().item(), 5) for parameter in actor.parameters()}


def test_before_any_evaluation_the_newest_weights_are_exported():
    _, actor, selection = make(IMPOSSIBLE)
    fill(actor, 0.25)
    selection.follow()
    assert selection.policy is actor
    assert selection.choice is None and not selection.has_reached_target


def test_the_average_moves_toward_the_newest_weights_and_takes_their_statistics():
    config, actor, selection = make(IMPOSSIBLE)
    fill(actor, 1.0)
    selection.follow()  # the average begins with the first weights
    fill(actor, 2.0)
    actor.trunk.normalizer.mean.fill_(7.0)
    selection.follow()
    selection.evaluate(config.task, 2)
    assert selection.choice.averaged, "preferred if both are equal"
    assert values(selection.policy) == {1.25}
    assert (selection.policy.trunk.normalizer.mean == 7.0).all()


def test_what_reaches_the_target_is_confirmed_on_further_episodes_and_kept():
    config, actor, selection = make(EASY)
    selection.follow()
    record = selection.evaluate(config.task, 10)
    assert selection.choice == Choice(10, True, 0.0, 5, 1.0, selection.choice.success_low)
    assert selection.has_reached_target
    assert (record["evaluation/success_rate"], record["evaluation/episodes"]) == (1.0, 5)
    kept = values(selection.policy)
    fill(actor, 0.5)
    assert values(selection.policy) == kept, "later updates do not change what was chosen"


def test_a_target_that_only_the_usual_episodes_reach_is_not_reached():
    config, _, selection = make(EASY)
    selection.follow()
    seeds = []

    def run(actor, task, episodes, seed):
        seeds.append(seed)
        reach = EASY if len(seeds) <= 2 else IMPOSSIBLE  # the two candidates, then fresh episodes
        task = load_run_config(SMOKE, [*OVERRIDES, reach]).task
        return evaluate_actor(actor, task, episodes, seed, threads=1)

    selection._run = run
    record = selection.evaluate(config.task, 10)
    assert seeds[0] == seeds[1] != seeds[2]
    assert (record["evaluation/success_rate"], record["evaluation/episodes"]) == (0.0, 5)
    assert not selection.has_reached_target


def test_a_worse_policy_replaces_the_best_only_at_another_difficulty():
    config, _, selection = make(EASY)
    hard = load_run_config(SMOKE, [*OVERRIDES, IMPOSSIBLE]).task
    selection.follow()
    selection.evaluate(config.task, 10)
    selection.evaluate(hard, 20)
    assert selection.choice.iteration == 10
    selection.evaluate(replace(hard, difficulty=0.5), 30)
    assert (selection.choice.iteration, selection.choice.success) == (30, 0.0)
    assert not selection.has_reached_target


def test_a_state_restores_choice_average_and_weights():
    config, actor, selection = make(IMPOSSIBLE)
    for value in (1.0, 2.0):
        fill(actor, value)
        selection.follow()
    selection.evaluate(config.task, 2)
    _, other_actor, other = make(IMPOSSIBLE)
    other.load_state_dict(selection.state_dict())
    assert other.choice == selection.choice
    assert values(other.policy) == values(selection.policy)
    for each, each_actor in ((selection, actor), (other, other_actor)):
        fill(each_actor, 3.0)
        each.follow()
        each.evaluate(replace(config.task, difficulty=0.5), 3)
    assert values(other.policy) == values(selection.policy)
