"""The judge follows the rule of the training metric."""

import numpy as np
import pytest
import torch

from dexgrasp_deploy.control.judge import GraspJudge, in_words, summarize
from dexgrasp_deploy.drivers.base import JointSample
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig, SpawnConfig, SuccessConfig

ROBOT = load_robot()
GRASP_CENTER = ROBOT.grasp_center
RESET_POSTURE = ROBOT.postures["reset"]

RULE = SuccessConfig(height_m=0.10, hold_s=0.5, reach_m=0.20)
TASK = GraspConfig(success=RULE)
STEP_S = 1 / 15
START_M = 0.30
"""Height of the centre of the box, which is 10 cm high, on the table, whose top is at 0.25 m."""
UPRIGHT = (1.0, 0.0, 0.0, 0.0)


@pytest.fixture
def joints(robot):
    return JointSample(robot.joint_names, np.array(RESET_POSTURE), np.zeros(23), 0.0)


@pytest.fixture
def in_hand(robot):
    """[3] m: where an object in the hand is."""
    frames = Kinematics(robot, (GRASP_CENTER,)).forward(torch.tensor([RESET_POSTURE]))
    return frames.position[0, 0].double().numpy()


def judged(robot, joints, places, task=TASK, turn=UPRIGHT, stands=True):
    """Success and lift of a box that stands on the table first."""
    judge = GraspJudge(robot, task, "box")
    if stands:
        judge.observe(np.array([-0.5, 0.0, START_M, *UPRIGHT]), places[0][0] - STEP_S)
    for stamp_s, place in places:
        judge.observe(np.array([*place, *turn]), stamp_s)
    return judge.success(joints), judge.max_lift_m


def test_held_to_the_end_is_a_success(robot, joints, in_hand):
    poses = [(0.1 * i, in_hand) for i in range(7)]
    success, lift_m = judged(robot, joints, poses)
    assert success
    assert lift_m == pytest.approx(in_hand[2] - START_M, abs=1e-6)


def test_held_too_short_or_dropped_is_none(robot, joints, in_hand):
    table = np.array([in_hand[0], in_hand[1], START_M])
    assert not judged(robot, joints, [(0.0, table), (0.1, in_hand), (0.5, in_hand)])[0]
    assert not judged(robot, joints, [(0.0, in_hand), (0.6, in_hand), (0.7, table)])[0]
    interrupted = [(0.0, in_hand), (0.3, table), (0.4, in_hand), (0.7, in_hand)]
    assert not judged(robot, joints, interrupted)[0]


def far_reaching(height_m):
    """A rule by which only the height counts."""
    return GraspConfig(success=SuccessConfig(height_m=height_m, hold_s=0.5, reach_m=5.0))


def test_the_height_of_the_rule_must_be_passed(robot, joints):
    for over_m, success in ((-1e-5, False), (1e-5, True)):
        place = np.array([-0.5, 0.0, START_M + RULE.height_m + over_m])
        found = judged(robot, joints, [(0.0, place), (1.0, place)], far_reaching(RULE.height_m))
        assert found[0] is success


def test_the_lowest_point_counts_however_the_object_is_turned(robot, joints):
    tilted = (np.cos(np.pi / 8), 0.0, np.sin(np.pi / 8), 0.0)  # 45 degrees about y
    place = np.array([-0.5, 0.0, 0.40])
    lowest_m = 0.40 - (0.03 + 0.05) * np.sqrt(0.5) - 0.25
    success, lift_m = judged(robot, joints, [(0.0, place), (1.0, place)], turn=tilted)
    assert not success and lift_m == pytest.approx(lowest_m, abs=1e-6)
    task = far_reaching(lowest_m - 1e-5)
    assert judged(robot, joints, [(0.0, place), (1.0, place)], task, tilted)[0]


def test_it_is_the_success_of_the_training_episode_step_for_step(robot, joints, in_hand):
    """Poses that come twice a step, and one that is late, are counted as the training does."""
    away = np.array([in_hand[0], in_hand[1], START_M])
    held = RULE.hold_steps(TASK.control_dt_s)
    for steps, success in ((held - 1, False), (held, True)):
        rising = [(0.0, away)]
        times = [0.5 * STEP_S * half for half in range(1, 2 * steps + 1) if half != 5]
        assert judged(robot, joints, rising + [(t, in_hand) for t in times])[0] is success


def test_an_object_that_the_task_does_not_have_is_refused(robot):
    with pytest.raises(ValueError, match="no object 'teapot'"):
        GraspJudge(robot, TASK, "teapot")


def test_lifted_but_not_in_the_hand_is_none(robot, joints, in_hand):
    away = in_hand + np.array([0.25, 0.0, 0.0])
    assert not judged(robot, joints, [(0.0, away), (1.0, away)])[0]


def test_with_a_goal_of_its_own_the_place_counts_and_not_the_height(robot, joints, in_hand):
    rule = SuccessConfig(goal_radius_m=0.1, hold_s=0.5)
    goal = in_hand + np.array([0.0, 0.06, 0.07])  # 9.2 cm away
    task = GraspConfig(success=rule, goal_m=tuple(goal.tolist()))
    held = [(0.0, in_hand), (0.6, in_hand)]
    assert judged(robot, joints, held, task)[0]
    goal[2] += 0.02
    further = GraspConfig(success=rule, goal_m=tuple(goal.tolist()))
    assert not judged(robot, joints, held, further)[0]
    passed = [(0.0, in_hand), (0.3, in_hand - [0.0, 0.02, 0.0]), (0.7, in_hand)]
    assert not judged(robot, joints, passed, task)[0]


def test_an_object_that_drops_to_its_start_was_not_lifted(robot, joints, in_hand):
    task = GraspConfig(success=RULE, spawn=SpawnConfig(height_m=0.5))
    poses = [(number * STEP_S, [-0.5, 0.0, z]) for number, z in enumerate((0.5, 0.36, 0.30))]
    success, lift_m = judged(robot, joints, poses, task, stands=False)
    assert not success and lift_m == pytest.approx(0.0, abs=1e-6)
    lifted = [*poses, (4.0, in_hand), (5.0, in_hand)]
    success, lift_m = judged(robot, joints, lifted, task, stands=False)
    assert success and lift_m == pytest.approx(in_hand[2] - START_M, abs=1e-6)


def test_no_pose_is_no_success(robot, joints):
    assert not judged(robot, joints, [], stands=False)[0]


def test_summary_by_hand():
    common = {"deadline_misses": 1, "clamped_commands": 2, "ended": "episode time is up: no"}
    first = {"success": True, "steps": 61, "duration_s": 4.0, **common}
    second = {"success": False, "steps": 31, "duration_s": 2.0, **common}
    second |= {"stopped": True, "ended": "measurements arrive but do not change: image"}
    nothing = {**second, "success": None, "refused": True, "steps": 0, "duration_s": 0.0}
    nothing |= {"stopped": False, "home_stops": ["FAULT: no free way was found: x", "refused"]}
    found = summarize([first, second, nothing])
    assert (found["episodes"], found["refused"]) == (3, 1)
    assert found["success_rate"] == 0.5
    assert found["control_hz"] == 15.0
    assert found["deadline_misses"] == 3
    stops = {"measurements arrive but do not change": 1}
    homes = {"no free way was found": 1, "refused": 1}
    assert found["safety"] == {
        "clamped_commands": 6,
        "stops": stops,
        "stops_on_the_way_home": homes,
    }
    assert in_words(found) == [
        "3 episodes, 1 refused: 1 of 2 lifted the object; 15.0 Hz, 3 periods late, "
        "6 commands changed by the safety filter, 3 stops",
        "episode 2, object: measurements arrive but do not change: image",
        "episode 3, object: measurements arrive but do not change: image",
    ]
    assert summarize([])["success_rate"] is None
    assert summarize([])["control_hz"] == 0.0
