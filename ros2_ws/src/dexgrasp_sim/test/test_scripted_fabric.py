"""The scripted policy for the fabric: pinches, reach, plan, phases, and whole episodes."""

import math
from pathlib import Path

import pytest
import torch

from dexgrasp_sim.config import parse_config, read_values, replace
from dexgrasp_sim.control.fabric.config import ALL_ACTIONS, FabricConfig
from dexgrasp_sim.control.fabric.decoder import FabricDecoder
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.objects.sets import PRIMITIVES
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.robot.rotation import rpy_to_matrix, zyx_euler_to_matrix
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.episodes import EPISODE_FIELDS, RESULT_SPECS
from dexgrasp_sim.tasks.grasp.scripted import ScriptedPolicy, make_script
from dexgrasp_sim.tasks.grasp.scripted.fabric_script import (
    FabricScriptedPolicy,
    Phase,
    Progress,
    next_phase,
)
from dexgrasp_sim.tasks.grasp.scripted.pinch import (
    PALM_PITCH_RAD,
    TIP_RADIUS_M,
    find_pinches,
)
from dexgrasp_sim.tasks.grasp.scripted.plan import Objects, height, plan
from dexgrasp_sim.tasks.grasp.scripted.reach import ROLLS_RAD, ReachMap, explore

ROBOT = load_robot()
FINGERTIPS = ROBOT.fingertips
HAND_JOINTS = ROBOT.hand_joints
PALM = ROBOT.palm

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIGS = Path(__file__).parents[4] / "config"
PAPER = read_values(CONFIGS / "paper.yaml")["task"]
FABRIC = FabricConfig()
TABLE, TABLE_TOP_M = GraspConfig().table_obstacle, 0.25
SPAWN = (-0.55, 0.10)


def paper_task(*names, **changes):
    objects = tuple(item for item in PRIMITIVES if item.name in names)
    values = {**PAPER, "stagger_starts": False, **changes, "objects": objects}
    return parse_config(GraspConfig, values)


class TestPinches:
    @pytest.fixture(scope="class")
    def pinches(self):
        return find_pinches(FABRIC, ROBOT)

    def tips(self, pinches):
        """Tip centres [W, 4, 3] in the palm frame, from the robot's kinematics alone."""
        pca = ROBOT.fabric.hand_pca
        q = torch.tensor(FABRIC.start_position(ROBOT)).repeat(len(pinches.components), 1)
        hand = ROBOT.joint_indices(HAND_JOINTS)
        now = q[:, hand]
        q[:, hand] = now + (pinches.components - now @ pca.axes.T) @ pca.axes
        frames = Kinematics(ROBOT, [PALM, *FINGERTIPS]).forward(q)
        centers = frames.position[:, 1:] - TIP_RADIUS_M * frames.rotation[:, 1:, :, 0]
        return (centers - frames.position[:, :1]) @ frames.rotation[:, 0]

    def test_fingers_and_thumb_are_as_far_apart_as_they_say_when_the_palm_is_pitched(
        self, pinches
    ):
        yaw = -2.0
        palm = zyx_euler_to_matrix(torch.tensor([yaw, PALM_PITCH_RAD, math.pi]))
        world = self.tips(pinches) @ palm.T
        fingers, thumb = world[:, :3].mean(1), world[:, 3]
        along = (fingers - thumb) @ torch.tensor([math.cos(yaw), math.sin(yaw), 0.0])
        used = (pinches.openings_m > -0.035) & (pinches.openings_m < 0.145)
        error = along - 2 * TIP_RADIUS_M - pinches.openings_m
        assert error[used].abs().max() < 0.004
        gripped = used & (pinches.openings_m < 0.135)
        assert (fingers - thumb)[gripped, 2].abs().max() < 0.01, "they come about as low"

    def test_the_center_is_in_the_middle(self, pinches):
        tips = self.tips(pinches)
        middle = 0.5 * (tips[:, :3].mean(1) + tips[:, 3])
        assert torch.allclose(pinches.centers_m[:, [0, 2]], middle[:, [0, 2]], atol=1e-4)

    def test_components_are_in_the_range_of_actions(self, pinches):
        low, high = (torch.tensor(bound) for bound in FABRIC.hand_range_rad(ROBOT))
        assert (pinches.components > low).all() and (pinches.components < high).all()

    def test_between_two_openings_it_interpolates_and_beyond_the_last_it_stays(self, pinches):
        first, last = float(pinches.openings_m[0]), float(pinches.openings_m[-1])
        wanted = torch.tensor([first + 0.0025, last, last + 0.1, first - 0.1])
        components, centers = pinches.at(wanted)
        quarter = 0.75 * pinches.components[0] + 0.25 * pinches.components[1]
        assert torch.allclose(components[0], quarter, atol=1e-5)
        assert torch.allclose(components[1:], pinches.components[[-1, -1, 0]], atol=1e-5)
        assert torch.allclose(centers[3], pinches.centers_m[0], atol=1e-6)


class TestReach:
    def flat(self, value=0.0):
        axes = (torch.tensor([0.0, 1.0]), torch.tensor([0.0, 2.0]), torch.tensor([0.0, 1.0, 3.0]))
        return ReachMap(axes, torch.full((2, 2, 3, len(ROLLS_RAD)), value))

    def test_it_interpolates_a_linear_function_exactly_and_clamps(self):
        reach = self.flat()
        x, y, z = torch.meshgrid(*reach.axes, indexing="ij")
        reach.error_m[..., 1] = 2 * x + 3 * y - z + 1
        at = torch.tensor([[0.25, 0.5, 2.0], [0.5, 1.0, 0.5], [9.0, -9.0, 9.0]])
        found = reach.at(*at.unbind(1))
        assert torch.allclose(found[:, 1], torch.tensor([1.0, 4.5, 0.0]), atol=1e-6)
        assert not found[:, [0, 2]].any()

    def test_the_middle_of_the_spawn_is_in_reach_and_the_wall_keeps_the_wrist_off_its_edge(self):
        reach = explore(FABRIC, ROBOT, TABLE)
        yaw = torch.tensor([-0.75, -0.5]) * math.pi
        middle = reach.at(*torch.tensor([SPAWN]).T.expand(2, 2), yaw)
        edge = reach.at(torch.full((2,), -0.55), torch.full((2,), 0.5), yaw)
        assert middle[:, 1].max() < 0.01
        assert edge.min() > 0.04

    def test_it_is_what_the_decoder_leaves(self):
        """One point of the table, from a decoder of its own."""
        reach = explore(FABRIC, ROBOT, TABLE)
        decoder = FabricDecoder(FABRIC, ROBOT, 1, 1 / 60, TABLE)
        components, center = find_pinches(FABRIC, ROBOT).at(torch.tensor([0.09]))
        euler = torch.tensor([[-math.pi, PALM_PITCH_RAD, math.pi]])
        pinch = torch.tensor([[-0.45, 0.10, TABLE_TOP_M + 0.04]])
        palm = pinch - (zyx_euler_to_matrix(euler) @ center[..., None]).squeeze(-1)
        for _ in range(120):
            decoder.decode(decoder.actions_for(torch.cat((palm, euler, components), 1)))
        reached = Kinematics(ROBOT, [PALM]).forward(decoder.target).position[:, 0]
        error = torch.linalg.norm(reached - palm)
        found = reach.at(pinch[:, 0], pinch[:, 1], euler[:, 0])[0, ROLLS_RAD.index(0.0)]
        assert error > 0.02
        assert torch.isclose(error, found, atol=1e-3)


class TestPlan:
    YAWS = torch.linspace(-math.pi, -math.pi / 2, 5)

    def reach(self, only=None, slope=0.2):
        """Everything is reached, or only yaws near `only`; `slope` m further away per rad."""
        axes = (torch.tensor([-1.0, 0.0]), torch.tensor([-1.0, 1.0]), self.YAWS)
        error = torch.zeros(2, 2, 5, len(ROLLS_RAD))
        if only is not None:
            error += slope * (self.YAWS - only).abs()[:, None]
        return ReachMap(axes, error)

    def objects(self, extents, yaw=0.0, roll=0.0, is_round=False):
        rotation = rpy_to_matrix(torch.tensor([[roll, 0.0, yaw]]))
        position = torch.tensor([[*SPAWN, 0.3]])
        return Objects(position, rotation, torch.tensor([extents]), torch.tensor([is_round]))

    def grasp(self, objects, losses=0, **reach):
        return plan(objects, self.reach(**reach), torch.tensor([losses]))

    @pytest.mark.parametrize(
        ("side_yaw", "palm_yaw", "width_m"),
        [
            (-2.9, -2.9, 0.05),
            (-2.0, -2.0, 0.05),
            (0.3, 0.3 - math.pi, 0.05),
            (1.2, 1.2 - math.pi, 0.05),
            (-0.4, -0.4 - math.pi / 2, 0.07),
        ],
    )
    def test_it_takes_a_box_across_the_narrower_side_that_the_palm_turns_to(
        self, side_yaw, palm_yaw, width_m
    ):
        grasp = self.grasp(self.objects((0.05, 0.07, 0.04), side_yaw))
        assert math.isclose(grasp.yaw_rad, palm_yaw, rel_tol=1e-5)
        assert math.isclose(grasp.width_m, width_m, rel_tol=1e-4)
        assert grasp.roll_rad == 0.0

    def test_the_width_of_a_box_taken_askew_is_its_shadow(self):
        grasp = self.grasp(self.objects((0.05, 0.10, 0.04), yaw=-0.75 * math.pi), only=-math.pi)
        assert math.isclose(grasp.yaw_rad, -math.pi, rel_tol=1e-5)
        assert math.isclose(grasp.width_m, (0.05 + 0.10) * math.sqrt(0.5), rel_tol=1e-4)

    def test_a_standing_cylinder_is_as_wide_from_all_sides(self):
        for only in (-math.pi, -0.625 * math.pi, -math.pi / 2):
            grasp = self.grasp(self.objects((0.06, 0.06, 0.1), 0.3, is_round=True), only=only)
            assert math.isclose(grasp.yaw_rad, only, rel_tol=1e-5)
            assert math.isclose(grasp.width_m, 0.06, rel_tol=1e-5)

    def test_a_failed_grasp_makes_it_turn_rather_to_where_the_palm_gets(self):
        box = self.objects((0.05, 0.05, 0.04), yaw=-math.pi)
        there = {"only": -0.875 * math.pi, "slope": 0.02}
        first, later = (self.grasp(box, losses, **there) for losses in (0, 3))
        assert math.isclose(first.yaw_rad, -math.pi, rel_tol=1e-5)
        assert math.isclose(later.yaw_rad, -0.9375 * math.pi, rel_tol=1e-5)

    def test_heights(self):
        assert math.isclose(height(self.objects((0.05, 0.10, 0.04))), 0.04, rel_tol=1e-5)
        lying = self.objects((0.06, 0.06, 0.1), roll=math.pi / 2, is_round=True)
        assert math.isclose(height(lying), 0.06, rel_tol=1e-4)
        tilted = self.objects((0.05, 0.10, 0.04), roll=math.pi / 4)
        assert math.isclose(height(tilted), 0.14 * math.sqrt(0.5), rel_tol=1e-4)


def test_phases_follow_each_other_and_a_loss_begins_anew():
    every = torch.tensor(list(Phase))
    yes, no = torch.ones(5, dtype=torch.bool), torch.zeros(5, dtype=torch.bool)
    assert next_phase(every, Progress(no, no, no, no, no)).tolist() == [0, 1, 2, 3, 4]
    assert next_phase(every, Progress(yes, yes, yes, yes, no)).tolist() == [1, 2, 3, 4, 4]
    assert next_phase(every, Progress(no, yes, no, no, no)).tolist() == [0, 2, 2, 3, 4]
    assert next_phase(every, Progress(yes, yes, yes, yes, yes)).tolist() == [0, 0, 0, 0, 0]


def run_episode(env):
    """The `episode` row of each environment's first episode, and the policy."""
    out = {spec.name: spec.empty(env.num_envs) for spec in RESULT_SPECS}
    rows = torch.full((env.num_envs, len(EPISODE_FIELDS)), torch.nan)
    with torch.inference_mode():
        env.reset(out)
        script = make_script(env)
        for _ in range(env.config.episode_steps):
            actions = script.act()
            assert (actions.abs() <= 1.0).all()
            env.step(actions, out)
            first = (out["terminated"] | out["truncated"]) & rows[:, 0].isnan()
            rows[first] = out["episode"][first]
        script.act()
    assert isinstance(script, FabricScriptedPolicy)
    return {name: rows[:, column] for column, name in enumerate(EPISODE_FIELDS)}, script


@pytest.mark.slow
def test_it_lifts_and_holds_large_flat_and_small_primitives_of_the_published_task():
    task = paper_task("flat_box", "tall_cylinder", "cube_box", "small_tall_box")
    env = make_grasp_env(task, 4, seed=0, threads=1, groups=())
    rows, script = run_episode(env)
    env.close()
    assert rows["success"].tolist() == [1.0] * 4
    assert rows["time_to_goal_s"].max() < 4.0
    assert rows["dropped"].sum() == 0
    assert (script.phase == Phase.WAIT).all(), "the next episode begins anew"


@pytest.mark.slow
def test_an_object_that_is_taken_away_is_picked_up_again():
    env = make_grasp_env(paper_task("cube_cylinder"), 1, seed=0, threads=1, groups=())
    out = {spec.name: spec.empty(1) for spec in RESULT_SPECS}
    start = torch.tensor([[-0.6, 0.05, TABLE_TOP_M + 0.042, 1.0, 0.0, 0.0, 0.0]])
    with torch.inference_mode():
        env.reset(out)
        script = FabricScriptedPolicy(env)
        while script.phase[0] != Phase.CARRY:
            env.step(script.act(), out)
        while env.engine.object_position[0, 2] < 0.5:
            env.step(script.act(), out)
        env.engine.reset(torch.tensor([0]), env.engine.joint_position.clone(), start)
        while not (out["truncated"] | out["terminated"])[0]:
            env.step(script.act(), out)
    env.close()
    assert script.losses[0] == 1
    assert out["episode"][0, EPISODE_FIELDS.index("success")] == 1.0


@pytest.mark.parametrize("names", [ALL_ACTIONS, ("hand_1", "palm_z", "palm_euler_y")])
def test_actions_for_a_goal_make_it_the_goal(names):
    decoder = FabricDecoder(replace(FABRIC, dimensions=names), ROBOT, 1, 1 / 60, TABLE)
    start = decoder.goal.clone()
    low, high = FABRIC.hand_range_rad(ROBOT)
    hand = [0.3 * a + 0.7 * b for a, b in zip(low, high)]
    goal = torch.tensor([[-0.5, 0.2, 0.4, -2.0, 0.1, 3.0, *hand]])
    actions = decoder.actions_for(goal)
    decoder.decode(actions)
    commanded = torch.tensor([name in names for name in ALL_ACTIONS])
    assert actions.shape == (1, len(names))
    assert torch.allclose(decoder.goal, torch.where(commanded, goal, start), atol=1e-5)
    assert decoder.actions_for(goal + 10.0).max() == 1.0


def test_the_velocity_task_keeps_its_own_policy():
    config = parse_config(GraspConfig, read_values(CONFIGS / "laptop_depth.yaml")["task"])
    env = make_grasp_env(config, 1, seed=0, threads=1, groups=())
    assert isinstance(make_script(env), ScriptedPolicy)
    env.close()
