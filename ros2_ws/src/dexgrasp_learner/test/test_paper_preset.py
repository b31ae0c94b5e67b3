"""`config/paper.yaml` is the published task, and its camera sees all of it."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from dexgrasp_learner.config import load_run_config
from dexgrasp_learner.networks.policy import build_actor
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.schedules import current_ranges
from dexgrasp_sim.tasks.grasp.observations import all_specs

CONFIG = Path(__file__).parents[4] / "config"
TALLEST_M = 0.12


@pytest.fixture(scope="module")
def paper():
    return load_run_config(CONFIG / "paper.yaml")


def spawn_corners(task):
    """[8, 3]: the spawn rectangle from the table to the top of the tallest object."""
    center, half = np.array(task.spawn.center_m), np.array(task.spawn.half_width_m)
    floor = [(x, y) for x, y in itertools.product((-1, 1), repeat=2)]
    heights = (task.table.top_m, task.table.top_m + TALLEST_M)
    return np.array([[*(center + half * corner), z] for corner in floor for z in heights])


def test_it_is_the_published_task(paper):
    task = paper.task
    assert (task.control_hz, task.physics_steps, task.episode_steps) == (60.0, 2, 600)
    assert task.physics.timestep_s == pytest.approx(1 / 120)
    assert task.physics.mujoco.integrator == "implicitfast"
    assert task.spawn.center_m == (-0.55, 0.1) and task.spawn.height_m == 0.5
    reach = dict(task.reward.weights)["reach"]
    assert reach.at(0.0) == reach.at(1.0) == 1.0
    assert paper.adr.increments == 50 and paper.training.horizon == 16
    assert len(task.objects) == 152 and task.action.kind == "fabric"
    assert len(task.action_names) == 11
    assert task.goal_m == (-0.5, 0.0, 0.75) and task.success.goal_radius_m == 0.1
    width, height = (2 * half for half in task.spawn.half_width_m)
    assert (width, height) == pytest.approx((0.5, 0.8))
    assert (task.camera.width, task.camera.height) == (160, 120)
    # horizontally 48.03 degrees, as aperture 21.02 and focal length 23.59 give
    assert 2 * np.degrees(np.arctan(80 / task.camera.focal_px)) == pytest.approx(48.03, abs=0.02)
    assert task.camera.focal_px == pytest.approx(179.6, abs=0.1)
    assert "state" not in paper.network.actor_groups and "state" in paper.network.critic_groups


@pytest.mark.parametrize(
    ("name", "initial", "final"),
    [
        ("action.damping_per_s", (10, 10), (20, 20)),
        ("action.velocity_target_factor", (1, 1), (0, 0)),
        ("reward.goal_sharpness_per_m", (15, 15), (20, 20)),
        ("reward.weights.height", (5, 5), (0, 0)),
        ("reward.weights.curl", (-0.01, -0.01), (-0.005, -0.005)),
        ("randomization.friction_scale", (1, 1), (0.8, 1.2)),
        ("randomization.stiffness_scale", (1, 1), (0.833, 1.2)),
        ("randomization.damping_scale", (1, 1), (0.833, 1.2)),
        ("randomization.joint_friction_scale", (0, 0), (0, 0.5)),
        ("randomization.object_mass_scale", (1, 1), (0.7, 1.5)),
        ("randomization.spawn_width_scale", (0, 0), (1, 1)),
        ("randomization.spawn_tilt_rad", (0, 0), (np.pi, np.pi)),
        ("randomization.joint_offset_rad", (0, 0), (0.05, 0.05)),
        ("randomization.joint_speed_rad_s", (0, 0), (0.5, 0.5)),
        ("observation_noise.joint_position_width_rad", (0, 0), (0, 0.08)),
        ("observation_noise.object_position_bias_m", (0, 0), (0, 0.02)),
        ("latency.action_delay_s", (0, 0), (0, 0.033)),
    ],
)
def test_difficulty_moves_each_parameter_over_its_range(paper, name, initial, final):
    for difficulty, wanted in ((0.0, initial), (1.0, final)):
        found = current_ranges(paper.task, difficulty)[name]
        assert found == pytest.approx(wanted, abs=1e-5), difficulty


def test_the_camera_sees_the_whole_spawn_area_and_the_goal(paper):
    task = paper.task
    points = np.array([*spawn_corners(task), task.goal_m])
    assert task.camera.sees(points).all() and task.spawn_in_view == 1.0
    pixel, depth = task.camera.project(points)
    size = [task.camera.width, task.camera.height]
    share = np.abs(2 * (pixel + 0.5) / size - 1).max()
    assert share < 0.955
    assert depth.min() > 0.5 and depth.max() < 1.3
    # rolled: what is up in the room is sideways in the image
    assert abs(task.camera.rotation_ros[2, 0]) > 0.1 > abs(task.camera.rotation_ros[2, 1])


def test_the_published_camera_is_where_it_was_published():
    task = load_run_config(CONFIG / "paper_camera.yaml").task
    axes = [[0.074, -0.127, -0.989], [-0.990, 0.108, -0.088], [0.118, 0.986, -0.118]]
    assert np.allclose(task.camera.rotation_ros.T, axes, atol=2e-3)
    # the published projections, for images of twice the size
    pixel, depth = task.camera.project(np.array([[-0.55, 0.1, 0.3], task.goal_m]))
    assert np.allclose(2 * pixel + 0.5, [[265, 95], [65, 38]], atol=1.0)
    assert np.allclose(depth, [0.84, 0.69], atol=0.01)
    assert 0.5 < task.spawn_in_view < 0.7 and not task.camera.sees(spawn_corners(task)).all()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.camera.look_at_m=[-0.55, 1.0, 1.5]", "`task.camera` sees 0% of the spawn area"),
        ("task.camera.far_m=0.9", "far_m 0.9, at least 50% is needed"),
        ("task.spawn.center_m=[-0.4, 0.1]", "outside the workspace from -0.8 to -0.3 m"),
    ],
)
def test_a_scene_that_cannot_work_is_refused_with_a_remedy(override, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_run_config(CONFIG / "paper.yaml", [override])
    assert "\n" not in str(error.value)


def test_the_networks_take_the_task_and_refuse_images_of_a_wrong_size(paper):
    actor = build_actor(paper.network, all_specs(paper.task), 11, view=paper.table_view)
    assert actor.memory_size == 1024
    tiny = load_run_config(CONFIG / "paper.yaml", ["task.camera.width=12", "task.camera.height=9"])
    with pytest.raises(ConfigError, match="height and width must be 16 to 640"):
        build_actor(tiny.network, all_specs(tiny.task), 11, view=tiny.table_view)
