import pytest
import torch

from dexgrasp_sim.config import ConfigError, parse_config, to_dict
from dexgrasp_sim.schedules import Ramp, Schedule, constant, current_ranges
from dexgrasp_sim.tasks.grasp.config import GraspConfig


def test_an_interval_moves_linearly_from_one_end_to_the_other():
    schedule = Schedule(initial=(1.0, 1.0), final=(0.5, 3.0))
    assert schedule.at(0.0) == (1.0, 1.0)
    assert schedule.at(0.25) == pytest.approx((0.875, 1.5))
    assert schedule.at(1.0) == (0.5, 3.0)
    assert (schedule.smallest, schedule.largest) == (0.5, 3.0)
    assert Schedule(initial=(0.2, 0.4)).at(0.7) == (0.2, 0.4)


def test_what_a_schedule_always_gives():
    assert constant(1.0).is_always(1.0) and not constant(1.0).is_always(0.0)
    assert not Schedule(initial=(1.0, 1.0), final=(1.0, 2.0)).is_always(1.0)
    assert not Schedule(initial=(0.0, 1.0), final=(1.0, 1.0)).is_always(1.0)


def test_a_number_moves_linearly_for_one_environment_or_many():
    ramp = Ramp(5.0, 1.0)
    assert [ramp.at(difficulty) for difficulty in (0.0, 0.25, 1.0)] == [5.0, 4.0, 1.0]
    assert ramp.at(torch.tensor([0.0, 0.25, 1.0])).tolist() == [5.0, 4.0, 1.0]
    assert Ramp(3.0).at(0.7) == Ramp(3.0).end == 3.0


@pytest.mark.parametrize("value", [2.5, {"initial": 2.5, "final": None}])
def test_a_plain_number_is_a_ramp_and_is_written_as_one(value):
    config = parse_config(GraspConfig, {"reward": {"weights": {"goal": value}}})
    assert dict(config.reward.weights)["goal"] == Ramp(2.5)
    assert to_dict(config)["reward"]["weights"]["goal"] == 2.5
    ramp = {"initial": 1, "final": 2}
    moving = parse_config(GraspConfig, {"reward": {"weights": {"goal": ramp}}})
    assert to_dict(moving)["reward"]["weights"]["goal"] == {"initial": 1.0, "final": 2.0}
    assert parse_config(GraspConfig, to_dict(moving)) == moving


def test_what_is_no_number_is_refused():
    with pytest.raises(ConfigError, match=r"reward\.weights.*much"):
        parse_config(GraspConfig, {"reward": {"weights": {"goal": "much"}}})


@pytest.mark.parametrize("end", ["initial", "final"])
def test_an_interval_upside_down_is_refused_by_name_and_value(end):
    schedule = {"initial": [0.0, 1.0], end: [0.5, 0.1]}
    pattern = rf"latency.action_delay_s.*`{end}` \[0.5, 0.1\].*give the smaller number first"
    with pytest.raises(ConfigError, match=pattern):
        parse_config(GraspConfig, {"latency": {"action_delay_s": schedule}})


def test_the_default_task_draws_nothing_at_random_but_the_spawn():
    config = GraspConfig()
    assert current_ranges(config, 1.0) == {}
    assert config.measures_exactly and not config.latency.delays_actions
    random = config.randomization
    assert not (random.changes_physics or random.changes_starts or random.pushes_objects)


def test_the_present_intervals_are_named_and_survive_a_file():
    task = {
        "observation_noise": {
            "joint_position_bias_rad": {"initial": [0.0, 0.0], "final": [0.0, 0.08]}
        },
        "randomization": {"friction_scale": {"initial": [0.5, 1.2]}},
    }
    reward = {"weights": {"lift": {"initial": 5, "final": 1}}}
    config = parse_config(GraspConfig, {**task, "reward": reward})
    wanted = {
        "reward.weights.lift": (4.0, 4.0),
        "observation_noise.joint_position_bias_rad": (0.0, pytest.approx(0.02)),
        "randomization.friction_scale": (0.5, 1.2),
    }
    assert current_ranges(config, 0.25) == wanted
    assert parse_config(GraspConfig, to_dict(config)) == config
