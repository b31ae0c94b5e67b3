"""The choice of an action space, and what all of them have in common."""

import pytest
import torch

from dexgrasp_sim.config import ConfigError, parse_config, replace, to_dict
from dexgrasp_sim.control.decoder import make_decoder
from dexgrasp_sim.control.fabric.config import FabricConfig
from dexgrasp_sim.control.fabric.obstacles import Obstacle
from dexgrasp_sim.control.palm_velocity.decoder import ActionConfig
from dexgrasp_sim.control.proprioception import Proprioception
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig

ROBOT = load_robot()
TABLE = GraspConfig().table_obstacle

SPACES = (ActionConfig(), FabricConfig())


@pytest.mark.parametrize("config", SPACES, ids=lambda config: config.kind)
def test_what_every_decoder_does(config):
    decoder, names = make_decoder(config, ROBOT, 3, 1 / 60, TABLE), config.action_names(ROBOT)
    assert decoder.action_names == names and decoder.action_dim == len(names)
    start = decoder.start_position
    assert torch.equal(decoder.target, start.repeat(3, 1))
    assert decoder.can_start(start.repeat(2, 1)).tolist() == [True, True]
    names = [term.name for term in decoder.intent_terms]
    assert len(set(names)) == len(names) and decoder.intent_terms[0].unit == "m"
    assert decoder.intent_terms == config.intent_terms(ROBOT)
    actions = torch.linspace(-1, 1, 3 * decoder.action_dim).view(3, -1)
    state = decoder.state_dict()
    for _ in range(5):
        moved = decoder.decode(actions)
    assert decoder.target is moved and (moved != start).any(dim=1).all()
    assert decoder.velocity_path is None
    assert decoder.intent().shape == (3, sum(term.size for term in decoder.intent_terms))
    wanted, after = moved.clone(), decoder.intent()
    decoder.load_state_dict(state)
    for _ in range(5):
        decoder.decode(actions)
    assert torch.equal(decoder.target, wanted) and torch.equal(decoder.intent(), after)
    decoder.reset(torch.tensor([1]))
    assert torch.equal(decoder.target[1], start) and torch.equal(decoder.target[0], wanted[0])


@pytest.mark.parametrize("config", SPACES, ids=lambda config: config.kind)
def test_the_proprioception_of_any_action_space_shows_its_intent(config):
    decoder, group = make_decoder(config, ROBOT, 2, 1 / 60, TABLE), Proprioception(ROBOT, config)
    action = torch.linspace(-1, 1, 2 * decoder.action_dim).view(2, -1)
    decoder.decode(action)
    position, velocity = decoder.target + 0.01, torch.ones(2, 23)
    out = group.spec.empty(2)
    group.observe(position, velocity, decoder, action, torch.tensor([0.0, 0.5]), out)
    names = [term.name for term in group.spec.terms]
    sizes = [term.size for term in group.spec.terms]
    terms = dict(zip(names, out.split(sizes, dim=1), strict=True))
    shown = torch.cat([terms[term.name] for term in decoder.intent_terms], dim=1)
    assert torch.equal(shown, decoder.intent())
    assert torch.allclose(terms["hand_tracking_error"], torch.tensor(-0.01), atol=1e-6)
    assert torch.equal(terms["last_action"], action)


def test_the_kind_chooses_the_action_space_and_each_key_stands_alone():
    def action(**values):
        return parse_config(GraspConfig, {"action": values}).action

    assert action() == ActionConfig() == GraspConfig().action
    assert action(palm_speed_m_s=0.2) == replace(ActionConfig(), palm_speed_m_s=0.2)
    assert action(kind="velocity") == ActionConfig()
    fabric = action(kind="fabric", dimensions=["palm_x"], gains={"palm": {"sharpness": 30}})
    palm = replace(FabricConfig().gains.palm, sharpness=30.0)
    gains = replace(FabricConfig().gains, palm=palm)
    assert fabric == FabricConfig(dimensions=("palm_x",), gains=gains)
    for config in (action(), fabric):
        task = GraspConfig(action=config)
        assert parse_config(GraspConfig, to_dict(task)) == task


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ({"kind": "jump"}, "'jump'.*'velocity', 'fabric'"),
        ({"palm_sped": 1}, "unknown key `action.palm_sped`"),
        ({"kind": "fabric", "palm_speed_m_s": 1}, "unknown key `action.palm_speed_m_s`"),
        ({"kind": "fabric", "damping_per_s": -1}, "`action.damping_per_s` = -1: -1 is below 0"),
        ({"kind": "fabric", "damping_per_s": {"initial": 10, "final": -2}}, "-2 is below 0"),
        (3, "`action` = 3"),
    ],
)
def test_wrong_action_spaces_are_named_as_the_user_wrote_them(action, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(GraspConfig, {"action": action})


def test_the_fabric_keeps_off_the_table_that_is_simulated():
    pregrasp = torch.tensor([ROBOT.postures["pregrasp"]])
    action = {"kind": "fabric", "obstacles": []}
    gaps = []
    for lower_m in (0.0, 0.1):
        table = {"center_m": [-0.5725, 0.088, 0.235 - lower_m]}
        camera = {"look_at_m": [-0.55, 0.1, 0.38 - lower_m]}
        values = {"action": action, "table": table, "camera": camera}
        env = make_grasp_env(parse_config(GraspConfig, values), 1)
        gaps.append(env.decoder.gap(pregrasp).item())
        env.close()
    assert gaps[1] - gaps[0] == pytest.approx(0.1, abs=1e-5)


def test_what_cannot_start_is_a_config_error():
    palm = Obstacle("box", (-0.54, -0.13, 0.86), (0.1, 0.1, 0.1))
    with pytest.raises(ConfigError, match=r"task.action: the start posture .* obstacle 'box'"):
        make_decoder(FabricConfig(obstacles=(palm,)), ROBOT, 1, 1 / 60, TABLE)
