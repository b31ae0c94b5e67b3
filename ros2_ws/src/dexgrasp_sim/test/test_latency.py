import pytest
import torch

from builders import SHORT, Play
from dexgrasp_sim.config import parse_config
from dexgrasp_sim.random_streams import RandomStreams
from dexgrasp_sim.tasks.grasp.latency import (
    ActionDelay,
    DelayLine,
    LatencyConfig,
    parts_in_effect,
)

GROUPS = ("proprio", "state", "depth", "object")


def fixed(value):
    return {"initial": [value, value]}


def play(**latency):
    """Two environments, four physics steps in a control step."""
    return Play(2, {**SHORT, "latency": latency}, GROUPS)


def actions(steps, num_envs=2):
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.rand(steps, num_envs, 7, generator=generator) - 1


def test_a_delay_line_gives_each_environment_the_sample_of_its_age():
    line = DelayLine((3, 2), torch.float32, max_age=2)
    age = torch.tensor([0, 1, 2])
    line.fill(torch.arange(3), torch.zeros(3, 2))
    seen = []
    for value in range(1, 6):
        line.push(torch.full((3, 2), float(value)))
        seen.append(line.read(age)[:, 0].tolist())
    assert seen == [[1, 0, 0], [2, 1, 0], [3, 2, 1], [4, 3, 2], [5, 4, 3]]
    line.fill(torch.tensor([2]), torch.full((1, 2), 9.0))
    assert line.read(age)[:, 0].tolist() == [5, 4, 9]


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("delay", [0, 1, 3, 4, 6, 9])
def test_targets_arrive_exactly_that_many_physics_steps_later(delay, parts):
    config = parse_config(LatencyConfig, {"action_delay_s": fixed(delay / 60)})
    first = torch.tensor([0])
    line = ActionDelay(config, RandomStreams(0, first), 1, 4, 1 / 60, parts)
    line.begin(first, first, difficulty=0.0)
    line.restart(torch.tensor([0]), torch.zeros(1, 1))
    applied = []
    for target in range(1, 7):
        path = torch.tensor([[[target + part / 10]] for part in range(parts)])
        applied += line.send(path).flatten().tolist()
    sent = [t + p / 10 for t in range(1, 7) for p in range(parts) for _ in range(4 // parts)]
    assert applied == pytest.approx(([0.0] * delay + sent)[: len(sent)])


def test_targets_of_parts_that_are_no_whole_steps_take_effect_with_the_next_and_the_last_does():
    assert parts_in_effect(4, 8) == (0, 0, 1, 1, 2, 2, 3, 3)
    assert parts_in_effect(1, 3) == (0, 0, 0)
    assert parts_in_effect(3, 4) == (0, 1, 2, 2)
    assert parts_in_effect(4, 1) == (3,)
    assert parts_in_effect(3, 2) == (1, 2)


def test_a_delay_of_a_control_period_is_the_undelayed_motion_one_step_later():
    late, prompt = play(action_delay_s=fixed(4 / 60)), play()
    commands = actions(8)
    position = []
    for action in commands:
        prompt.step(action)
        position.append(prompt.env.engine.joint_position.clone())
    resting = play()
    resting.env.engine.step(resting.env.decoder.target)  # the first period: the start is held
    late.step(commands[0])
    assert torch.equal(late.env.engine.joint_position, resting.env.engine.joint_position)
    for step in range(1, 8):
        late.step(commands[step])
        difference = late.env.engine.joint_position - position[step - 1]
        assert difference.abs().max() < 2e-2, "but for a start that has settled"


def test_a_drawn_delay_of_zero_changes_no_bit():
    """Physics goes step by step then, with the same result."""
    chance = {"action_delay_s": {"initial": [0.0, 0.0], "final": [0.0, 0.1]}}
    one, other = play(**chance), play()
    assert one.env.config.latency.delays_actions
    for action in actions(8):
        assert torch.equal(one.step(action)["proprio"], other.step(action)["proprio"])


@pytest.mark.parametrize("age", [1, 2])
def test_joints_and_images_are_exactly_that_old_and_no_older_than_the_episode(age):
    late, prompt = play(joint_age_steps=fixed(age), image_age_steps=fixed(age)), play()
    positions, states, images = [], [], []

    def keep(out):
        positions.append(out["proprio"][:, :23].clone())
        states.append(out["object"][:, :3].clone())
        images.append(out["depth"].clone())

    keep(prompt.out)
    (spec,) = (spec for spec in late.env.observation_specs if spec.name == "state")
    offset = sum(term.size for term in spec.terms[:2])
    assert spec.terms[2].name == "object_position"
    begun = 0
    for step, action in enumerate(actions(30), start=1):
        keep(prompt.step(action))
        out = late.step(action)
        if out["truncated"].any():
            begun = step
        old = max(step - age, begun)
        assert torch.equal(out["proprio"][:, :23], positions[old]), step
        assert torch.equal(out["depth"], images[old]), step
        assert torch.allclose(out["state"][:, offset : offset + 3], states[old], atol=1e-7)
        assert torch.equal(out["object"][:, :3], states[step]), "the target is of now"
    assert begun == 24


def test_ages_are_whole_steps_with_both_ends_included():
    config = parse_config(LatencyConfig, {"image_age_steps": {"initial": [1.0, 3.0]}})
    evenly = (torch.arange(300) + 0.5) / 300
    drawn = config.image_age_steps.sample_whole(0.0, evenly)
    assert torch.bincount(drawn).tolist() == [0, 100, 100, 100]
    ends = torch.tensor([0.0, 1 - 2.0**-24])
    assert config.image_age_steps.sample_whole(0.0, ends).tolist() == [1, 3]
