import mujoco
import pytest
import torch

from builders import robot_with_fingers
from dexgrasp_sim.config import replace
from dexgrasp_sim.control.palm_velocity.decoder import ActionConfig, ActionDecoder
from dexgrasp_sim.control.proprioception import Proprioception, proprioception_spec
from dexgrasp_sim.physics.mujoco.mjcf import robot_spec
from dexgrasp_sim.robot.robot import load_robot

ROBOT = load_robot()
ARM_JOINTS = ROBOT.arm_joints
FINGERTIPS = ROBOT.fingertips
GRASP_CENTER = ROBOT.grasp_center
HAND_JOINTS = ROBOT.hand_joints
JOINT_NAMES = ROBOT.joint_names

CONFIG = ActionConfig()
NUM_ENVS = 3


class Measured:
    """Random measurements and a decoder that has moved."""

    def __init__(self, robot=ROBOT, config=CONFIG):
        generator = torch.Generator().manual_seed(0)
        lower, upper = (
            torch.tensor([getattr(robot.joints[name], end) for name in JOINT_NAMES]).float()
            for end in ("lower", "upper")
        )
        self.fraction = torch.rand(NUM_ENVS, 23, generator=generator)
        self.by_name = dict(
            zip(JOINT_NAMES, (lower + (upper - lower) * self.fraction).T, strict=True)
        )
        self.speed_by_name = dict(
            zip(JOINT_NAMES, torch.randn(23, NUM_ENVS, generator=generator), strict=True)
        )
        self.position = torch.stack([self.by_name[name] for name in robot.joint_names], 1)
        self.velocity = torch.stack([self.speed_by_name[name] for name in robot.joint_names], 1)
        self.decoder = ActionDecoder(config, robot, NUM_ENVS, 0.1)
        self.action = 2 * torch.rand(NUM_ENVS, self.decoder.action_dim, generator=generator) - 1
        for _ in range(3):
            self.decoder.decode(self.action)
        self.time = torch.rand(NUM_ENVS, generator=generator)
        self.group = Proprioception(robot, config)
        self.out = self.group.spec.empty(NUM_ENVS)
        self.group.observe(
            self.position, self.velocity, self.decoder, self.action, self.time, self.out
        )

    def terms(self):
        """Term name to its columns, in the order of the spec."""
        sizes = [term.size for term in self.group.spec.terms]
        names = [term.name for term in self.group.spec.terms]
        return dict(zip(names, self.out.split(sizes, dim=1), strict=True))


def mujoco_sites(by_name, env):
    """Positions of fingertips and grasp centre as MuJoCo computes them."""
    model = robot_spec(ROBOT).compile()
    data = mujoco.MjData(model)
    for name, values in by_name.items():
        data.joint(name).qpos = values[env].item()
    mujoco.mj_kinematics(model, data)
    return {name: data.site(name).xpos.tolist() for name in (*FINGERTIPS, GRASP_CENTER)}


@pytest.mark.parametrize("env", range(NUM_ENVS))
def test_frames_are_where_mujoco_puts_them(env):
    measured = Measured()
    terms, sites = measured.terms(), mujoco_sites(measured.by_name, env)
    tips = terms["fingertip_position"][env].view(4, 3).tolist()
    for tip, name in zip(tips, FINGERTIPS, strict=True):
        assert tip == pytest.approx(sites[name], abs=1e-5), name
    center = terms["grasp_center_position"][env].tolist()
    assert center == pytest.approx(sites[GRASP_CENTER], abs=1e-5)


def test_terms_hold_what_their_names_say():
    measured = Measured()
    terms, decoder = measured.terms(), measured.decoder
    assert torch.equal(terms["joint_position"], measured.position)
    assert torch.equal(terms["arm_joint_velocity"], measured.velocity[:, :7])
    assert torch.equal(terms["palm_target_position"], decoder.palm_position)
    wanted = decoder.target[:, 7:] - measured.position[:, 7:]
    assert torch.equal(terms["hand_tracking_error"], wanted)
    assert torch.equal(terms["palm_target_yaw"].squeeze(1), decoder.palm_yaw)
    for column, name in enumerate(("finger_closure", "thumb_closure", "finger_spread")):
        assert torch.equal(terms[name].squeeze(1), decoder.synergies[:, column])
    assert torch.equal(terms["last_action"], measured.action)
    assert torch.equal(terms["episode_time_fraction"].squeeze(1), measured.time)
    assert sum(values.shape[1] for values in terms.values()) == 23 + 7 + 12 + 3 + 3 + 16 + 12


def test_one_robot_observes_what_its_row_of_a_batch_does():
    measured = Measured()
    for env in range(NUM_ENVS):
        row = slice(env, env + 1)
        decoder = ActionDecoder(CONFIG, ROBOT, 1, 0.1)
        decoder.load_state_dict({k: v[row] for k, v in measured.decoder.state_dict().items()})
        single = measured.group.spec.empty(1)
        Proprioception(ROBOT, CONFIG).observe(
            measured.position[row],
            measured.velocity[row],
            decoder,
            measured.action[row],
            measured.time[row],
            single,
        )
        assert torch.equal(single[0], measured.out[env])


def test_joints_and_tips_are_taken_by_name(tmp_path):
    robot = robot_with_fingers(tmp_path, ("thumb", "middle", "index", "ring"))
    plain, permuted = Measured().terms(), Measured(robot).terms()
    columns = robot.joint_indices(JOINT_NAMES)
    tips = [3 * robot.fingertips.index(tip) + axis for tip in FINGERTIPS for axis in range(3)]
    hand = [column - 7 for column in columns[7:]]
    order = {
        "joint_position": columns,
        "fingertip_position": tips,
        "hand_tracking_error": hand,
    }
    assert columns != sorted(columns)
    for name, values in plain.items():
        assert torch.equal(permuted[name][:, order.get(name, slice(None))], values), name


def test_the_spec_follows_the_action_and_names_every_unit():
    spec = proprioception_spec(replace(CONFIG, dimensions=("palm_x", "palm_z")), ROBOT)
    sizes = {term.name: term.size for term in spec.terms}
    assert sizes["last_action"] == 2
    assert sizes["arm_joint_velocity"] == len(ARM_JOINTS)
    assert sizes["hand_tracking_error"] == len(HAND_JOINTS)
    assert all(term.unit for term in spec.terms)
    in_metres = [term for term in spec.terms if term.unit == "m"]
    assert in_metres and all(term.frame == "base" for term in in_metres)
    assert spec != proprioception_spec(CONFIG, ROBOT)


def test_out_is_written_in_place_and_no_input_changes():
    measured = Measured()
    inputs = measured.position.clone(), measured.velocity.clone(), measured.action.clone()
    state = measured.decoder.state_dict()
    rollout = torch.full((2, NUM_ENVS, measured.group.spec.shape[0]), 7.0)
    measured.group.observe(
        measured.position,
        measured.velocity,
        measured.decoder,
        measured.action,
        measured.time,
        rollout[1],
    )
    assert torch.equal(rollout[1], measured.out) and (rollout[0] == 7.0).all()
    after = measured.position, measured.velocity, measured.action
    assert all(torch.equal(a, b) for a, b in zip(inputs, after, strict=True))
    for name, value in measured.decoder.state_dict().items():
        assert torch.equal(value, state[name])
