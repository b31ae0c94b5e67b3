"""Ways are planned around obstacles, with the limits of the robot, before anything moves."""

import numpy as np
import pytest
import torch

from dexgrasp_deploy.control.episode import Reason, UnfitInput
from dexgrasp_deploy.control.motion.cell import obstacles_of, safety_filter
from dexgrasp_deploy.control.motion.way import Leg, Planning, Way, WayPlanner, at_steps
from dexgrasp_deploy.control.safety import SafetyConfig
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

ROBOT, TASK = load_robot(), GraspConfig()
HOME = np.array(ROBOT.postures["pregrasp"])
LOW = HOME + 0.3 * np.array([1, -1, 1, 1, -1, 1, 1, *[0] * 16])
"""The palm is 16 cm above the table here."""


@pytest.fixture(scope="module")
def planner():
    clearances = safety_filter(TASK, ROBOT, SafetyConfig()).clearances
    return WayPlanner(ROBOT, obstacles_of(TASK), clearances)


def finished(planning):
    for _ in range(20):
        planning.advance(100)
        if planning.finished:
            break
    assert planning.way is not None, planning.failure
    return planning.way


def random_postures(planner, number):
    """Free postures in the workspace, up to 1 rad from home."""
    generator, found = np.random.default_rng(0), []
    clearances = safety_filter(TASK, ROBOT, SafetyConfig(obstacle_gap_m=0.01)).clearances
    while len(found) < number:
        posture = HOME + generator.uniform(-1, 1, 23) * np.array([1.0] * 7 + [0.4] * 16)
        posture = np.clip(posture, ROBOT.lower, ROBOT.upper)
        if clearances.worst(posture)[0] > 0 and planner.palm_height(posture) > 0.3:
            found.append(posture)
    return found


def test_ways_home_from_anywhere_are_free_and_within_the_limits(planner):
    clearances = safety_filter(TASK, ROBOT, SafetyConfig()).clearances
    for start in random_postures(planner, 5):
        way = finished(planner.home(start, HOME, lift_m=0.1))
        path = way.path
        np.testing.assert_array_equal(path[0], start)
        np.testing.assert_allclose(path[-1], HOME, atol=0.02)
        assert clearances.of(path).min() >= 0
        assert (path >= ROBOT.lower - 1e-6).all() and (path <= ROBOT.upper + 1e-6).all()
        velocity = np.diff(path, axis=0) * 60
        assert (np.abs(velocity) <= ROBOT.velocity_limit + 1e-4).all()
        acceleration = np.abs(np.diff(velocity, axis=0)) * 60
        assert (acceleration <= np.array(ROBOT.max_acceleration) * 1.01 + 0.01).all()


def test_low_palm_goes_straight_up_first(planner):
    way = finished(planner.home(LOW, HOME, lift_m=0.1))
    heights = np.array([planner.palm_height(position) for position in way.path])
    top = int(np.argmax(heights > heights[0] + 0.09))
    palm = Kinematics(ROBOT, [ROBOT.palm])
    places = palm.forward(torch.from_numpy(way.path[[0, top]]).float()).position[:, 0]
    sideways = (places[1] - places[0])[:2]
    assert 0 < top < len(way.path) - 1
    assert sideways.norm() < 0.02


def test_what_is_put_down_is_held_on_the_way_back_and_let_go_at_its_end(planner):
    held = HOME.copy()
    held[ROBOT.hand] = 0.5 * (HOME + ROBOT.upper)[ROBOT.hand]
    back = held + np.linspace(0.0, 0.3, 31)[:, np.newaxis] * (np.arange(23) == 0)
    way = finished(planner.back_and_open(back, HOME))
    np.testing.assert_array_equal(way.path[:31], back)
    opening = way.path[31:]
    assert np.abs(opening[:, :7] - back[-1, :7]).max() < 0.01
    np.testing.assert_allclose(way.path[-1][ROBOT.hand], HOME[ROBOT.hand], atol=0.02)


def test_where_nothing_leads_back_the_hand_opens_at_once(planner):
    held = HOME.copy()
    held[ROBOT.hand] = 0.5 * (HOME + ROBOT.upper)[ROBOT.hand]
    way = finished(planner.back_and_open(held[np.newaxis], HOME))
    np.testing.assert_allclose(way.path[:, 0], held[0], atol=0.01)
    np.testing.assert_allclose(way.path[-1][ROBOT.hand], HOME[ROBOT.hand], atol=0.02)


def test_hand_stays_as_it_is_while_the_palm_rises(planner):
    wide = LOW.copy()
    wide[7] = 0.3
    way = finished(planner.home(wide, HOME, lift_m=0.1))
    heights = np.array([planner.palm_height(position) for position in way.path])
    risen = int(np.argmax(heights > heights[0] + 0.09))
    np.testing.assert_allclose(way.path[: risen + 1, 7], 0.3, atol=1e-6)


def test_a_path_of_periods_is_read_at_the_steps_of_the_planner():
    path = np.array([[0.0, 0.0], [0.3, -0.6], [0.6, -0.6]])
    found = at_steps(path, 3 / 60)
    np.testing.assert_allclose(found[:, 0], np.arange(7) / 10, atol=1e-12)
    np.testing.assert_allclose(found[:, 1], [0, -0.2, -0.4, -0.6, -0.6, -0.6, -0.6], atol=1e-12)


def test_robot_deep_in_the_table_is_refused_and_the_table_named(planner):
    inside = HOME.copy()
    inside[:7] = [0, -1.9, 0, 0, 0, 0, 0]
    with pytest.raises(UnfitInput, match="inside 'table'") as caught:
        planner.home(inside, HOME, 0.0)
    assert caught.value.reason is Reason.IN_OBSTACLE


def test_way_that_would_end_in_an_obstacle_is_refused_before_it_is_planned(planner):
    behind = HOME.copy()
    behind[:7] = [0, -1.9, 0, 0, 0, 0, 0]
    planning = planner.home(HOME, behind, 0.0)
    assert planning.finished and planning.way is None
    assert planning.failure.startswith("no way is free: it would end in ")
    assert planning.failure.endswith("and table")


def test_where_no_alternative_arrives_there_is_no_way(planner):
    beyond = HOME.copy()
    beyond[3] = ROBOT.upper[3] + 0.1  # the fabric stops at the limit
    planning = Planning(planner, HOME, [(Leg(beyond),)])
    for _ in range(4):
        planning.advance(100)
    assert planning.way is None
    assert "no way is free; of the last one tried, it does not arrive" in planning.failure


def test_way_by_hand():
    way = Way(np.array([[0.0, 0.0], [0.1, 0.2], [0.2, 0.0]]), step_s=0.5)
    assert way.duration_s == 1.0
    np.testing.assert_allclose(way.at(0.25), [0.05, 0.1])
    np.testing.assert_allclose(way.at(0.75), [0.15, 0.1])
    np.testing.assert_allclose(way.at(9.0), [0.2, 0.0])
    # fastest: 0.4 rad/s of a limit of 0.1
    np.testing.assert_allclose(way.rates(np.array([1.0, 0.1])), 0.25)
    np.testing.assert_allclose(way.rates(np.array([1.0, 1.0])), 1.0)
    still = Way(np.array([[0.3]]))
    assert still.duration_s == 0.0 and still.at(1.0).tolist() == [0.3]
    assert still.rates(np.array([1.0])).tolist() == [1.0]


def test_slow_parts_of_a_way_are_not_slowed_down_and_no_part_is_too_fast():
    # 60 steps at 0.06 rad/s, 60 at 0.6 rad/s, 60 at 0.06 rad/s, of a limit of 0.2 rad/s
    steps = np.repeat([0.001, 0.01, 0.001], 60)
    way = Way(np.cumsum(np.append(0.0, steps))[:, np.newaxis])
    rates = way.rates(np.array([0.2]))
    np.testing.assert_allclose(rates[[0, 30, 179]], 1.0)
    np.testing.assert_allclose(rates[60:120], 1 / 3)
    assert (rates * steps * 60 <= 0.2 + 1e-12).all()
    assert np.abs(np.diff(rates)).max() <= (2 / 3) / 21 + 1e-12
