"""An observation group and a reward term are one entry each."""

import pytest
import torch

from builders import Play
from dexgrasp_sim.specs import Term as SpecTerm
from dexgrasp_sim.specs import flat_spec
from dexgrasp_sim.tasks.grasp.episodes import episode_fields
from dexgrasp_sim.tasks.grasp.observations import GROUPS, Group, Source, grasp_specs
from dexgrasp_sim.tasks.grasp.rewards import TERMS, Term

CLOSED = {"reward": {"weights": dict.fromkeys(TERMS, 0.0), "scale": 1.0}}


@pytest.fixture
def play():
    """Plays environments that are closed at the end."""
    opened = []

    def make(*args, **options):
        opened.append(Play(*args, **options))
        return opened[-1]

    yield make
    for each in opened:
        each.env.close()


def test_a_new_observation_group_is_specified_and_written(monkeypatch, play):
    clock = Group(
        lambda config: flat_spec("clock", [SpecTerm("steps", 1, "1")]),
        lambda env, out: out.copy_(env.step_count[:, None]),
        Source.NOTHING,
    )
    monkeypatch.setitem(GROUPS, "clock", clock)
    (spec,) = grasp_specs({}, ["clock"]).observation_specs
    assert spec.shape == (1,)
    game = play(2, groups=("clock",))
    assert game.out["clock"].tolist() == [[0.0], [0.0]]
    game.step()
    assert game.out["clock"].tolist() == [[1.0], [1.0]]


def test_a_new_reward_term_is_weighted_and_followed(monkeypatch, play):
    tall = Term(lambda config, now: torch.full_like(now.height_m, 2.0), 0.25)
    monkeypatch.setitem(TERMS, "tall", tall)
    assert "reward_tall" in episode_fields()
    game = play(2, task=CLOSED)
    game.step()
    assert game.out["reward"].tolist() == [0.5, 0.5]
    assert game.out["episode"].shape == (2, len(episode_fields()))
