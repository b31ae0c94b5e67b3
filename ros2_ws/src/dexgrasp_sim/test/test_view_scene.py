"""The viewer's scene and panel, as the web server holds them; no browser looks at them here."""

import itertools
import secrets
import threading

import mujoco
import numpy as np
import pytest
import torch
import viser
from scipy.spatial.transform import Rotation

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.physics.mujoco.mjcf import robot_spec
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.episodes import EPISODE_FIELDS
from dexgrasp_sim.tasks.grasp.observations import view_specs
from dexgrasp_sim.tasks.grasp.scripted import ScriptedPolicy
from dexgrasp_sim.transport.layout import RunLayout
from dexgrasp_sim.transport.shared_memory import Segment
from dexgrasp_sim.transport.telemetry import WorkerTelemetry
from dexgrasp_sim.vec_env import EnvSpecs
from dexgrasp_sim.view.env_source import EnvSource
from dexgrasp_sim.view.panel import Panel
from dexgrasp_sim.view.run_source import RunSource
from dexgrasp_sim.view.source import Moment
from dexgrasp_sim.view.viewer import Viewer
from dexgrasp_sim.view.viser_scene import SceneView

ROBOT = load_robot()
ARM_PREGRASP = ROBOT.postures["pregrasp"][ROBOT.arm]
HAND_REST = ROBOT.postures["reset"][ROBOT.hand]
JOINT_NAMES = ROBOT.joint_names

CONFIG = GraspConfig()
VIEW = {
    "joint_position": torch.arange(23) / 20,
    "joint_velocity": torch.zeros(23),
    "joint_target": torch.zeros(23),
    "object_pose": torch.tensor([-0.5, 0.1, 0.3, 0.5, 0.5, -0.5, 0.5]),
    "goal": torch.tensor([-0.5, 0.0, 0.75]),
}


def moment(env=0, time_s=0.0, **changes):
    fields = {
        "joint_position": VIEW["joint_position"],
        "object_pose": VIEW["object_pose"],
        "goal": VIEW["goal"],
        "reward": 0.25,
        "images": {},
        "facts": {"object": "box"},
    }
    return Moment(env, time_s, **{**fields, **changes})


def scripted(env):
    policy = ScriptedPolicy(env)
    return lambda observations, begins: policy.act()


@pytest.fixture
def server():
    server = viser.ViserServer("127.0.0.1", 0, verbose=False)
    yield server
    server.stop()


@pytest.fixture
def source():
    source = EnvSource("scripted policy", CONFIG, scripted, (), num_envs=3, env=1)
    yield source
    source.close()


def test_every_shape_of_the_robot_is_a_node_where_mujoco_has_it(server):
    view = SceneView(server.scene, ROBOT, CONFIG)
    angles = torch.tensor(ARM_PREGRASP + HAND_REST)
    view.show(moment(joint_position=angles))
    model = robot_spec(ROBOT).compile()
    data = mujoco.MjData(model)
    for name, angle in zip(JOINT_NAMES, angles.tolist()):
        data.joint(name).qpos = angle
    mujoco.mj_forward(model, data)
    seen = 0
    for link in ROBOT.links.values():
        for index, shape in enumerate(link.visuals):
            frame = server.scene.get_handle_by_name(f"/robot/{link.name}")
            node = server.scene.get_handle_by_name(f"/robot/{link.name}/{index}")
            turn = Rotation.from_quat(frame.wxyz, scalar_first=True)
            place = turn.apply(node.position) + frame.position
            geom = data.geom(f"{link.name}_{index}")
            np.testing.assert_allclose(place, geom.xpos, atol=1e-5)
            matrix = (turn * Rotation.from_quat(node.wxyz, scalar_first=True)).as_matrix()
            np.testing.assert_allclose(matrix.ravel(), geom.xmat, atol=1e-5)
            assert np.allclose(node.color, np.multiply(shape.rgba[:3], 255), atol=0.5)
            seen += 1
    assert seen == sum(len(link.visuals) for link in ROBOT.links.values()) > 20


def test_the_scene_is_the_tasks(server):
    view = SceneView(server.scene, ROBOT, CONFIG)
    view.show(moment())
    node = server.scene.get_handle_by_name
    table, spawn = CONFIG.table, CONFIG.spawn
    assert np.allclose(node("/table").position, table.center_m)
    assert np.allclose(node("/table").dimensions, table.size_m)
    assert np.allclose(node("/object").position, VIEW["object_pose"][:3])
    assert np.allclose(node("/object").wxyz, VIEW["object_pose"][3:])
    assert np.allclose(node("/goal").position, VIEW["goal"])
    corners = node("/spawn").points.reshape(-1, 3)
    assert np.allclose(corners[:, :2].min(axis=0), np.subtract(spawn.center_m, spawn.half_width_m))
    assert np.allclose(corners[:, :2].max(axis=0), np.add(spawn.center_m, spawn.half_width_m))
    for side, camera in zip(
        ("left", "right"), CONFIG.camera.stereo_pair(CONFIG.stereo_baseline_m)
    ):
        frustum = node(f"/camera/{side}")
        assert np.allclose(frustum.position, camera.position)
        # viser's cameras look along z, to the right along x, as those of ROS
        matrix = Rotation.from_quat(frustum.wxyz, scalar_first=True).as_matrix()
        np.testing.assert_allclose(matrix, camera.rotation_ros, atol=1e-6)
        assert frustum.aspect == pytest.approx(4 / 3)


def test_each_environment_shows_its_own_object(server):
    view = SceneView(server.scene, ROBOT, CONFIG)
    for env in (0, 1, 3, 2):
        view.show(moment(env))
        item = CONFIG.objects[env % len(CONFIG.objects)]
        corners = server.scene.get_handle_by_name("/object").vertices
        np.testing.assert_allclose(np.ptp(corners, axis=0), item.extents_m, rtol=2e-2)


def test_lines_begin_anew_with_another_environment(server, source):
    panel = Panel(server.gui, source, CONFIG)
    for step in range(5):
        panel.show(moment(1, step / 5, reward=float(step)))
        panel.show(moment(1, step / 5, reward=99.0))  # the same moment counts once
    times, rewards = panel._reward.data
    assert times.tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert rewards.tolist() == [0, 1, 2, 3, 4]
    _, heights, distances = panel._lengths.data
    assert heights[0] == pytest.approx(0.3 - CONFIG.table.top_m)
    assert distances[0] == pytest.approx(np.hypot(0.1, 0.45))
    for step in range(2):
        panel.show(moment(2, 10 + step, reward=7.0))
    assert panel._reward.data[1].tolist() == [7.0, 7.0]


def test_images_stand_side_by_side(server, source):
    panel = Panel(server.gui, source, CONFIG)
    height, width = CONFIG.camera.height, CONFIG.camera.width
    depth = torch.full((height, width), 500, dtype=torch.int16)
    pair = torch.zeros(2, 3, height, width, dtype=torch.uint8)
    pair[0, 0], pair[1, 2] = 255, 255  # a red image and a blue one
    panel.show(moment(images={"depth": depth, "stereo_rgb": pair}))
    picture = panel._picture.image
    third = picture.shape[1] // 3
    assert picture.shape[0] / third == pytest.approx(height / width, rel=0.02)
    middle = [picture[5, third // 2 + index * (third + 2)].tolist() for index in range(3)]
    assert middle[1:] == [[255, 0, 0], [0, 0, 255]]
    assert middle[0] not in middle[1:] and max(middle[0]) > 100


def test_the_loop_steps_pauses_and_starts_anew(source):
    with Viewer(source, CONFIG, port=0) as viewer:
        wishes = viewer.panel.wishes
        for _ in range(3):
            viewer.tick()
        period_s = source.period_s
        assert source.moment().time_s == pytest.approx(3 * period_s)
        wishes.is_paused = True
        viewer.tick()
        assert source.moment().time_s == pytest.approx(3 * period_s)
        wishes.step = True
        for _ in range(2):
            viewer.tick()
        assert source.moment().time_s == pytest.approx(4 * period_s)
        before = source.moment()
        wishes.restart = True
        viewer.tick()
        after = source.moment()
        assert after.facts["time in the episode"].startswith("0.0")
        assert not torch.equal(before.object_pose, after.object_pose)
        wishes.env = 2
        viewer.tick()
        assert source.moment().env == 2
        assert not wishes.restart and wishes.env is None


def test_the_loop_keeps_the_pace_and_does_not_catch_up(source):
    """A clock of its own: three periods pass in the first step, then time stands still."""
    times = itertools.chain([0.0, 10.0], itertools.repeat(10.0))
    waits = []

    class Stop(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            if len(waits) == 3:
                self.set()
            return self.is_set()

    with Viewer(source, CONFIG, port=0, clock=lambda: next(times)) as viewer:
        viewer.run(Stop())
    assert waits[0] == 0.0
    assert waits[1:] == pytest.approx([source.period_s, 2 * source.period_s])


def test_a_policy_is_told_what_begins_and_sees_its_groups():
    calls = []

    def make_policy(env):
        def act(observations, begins):
            calls.append((set(observations), begins.clone()))
            return torch.zeros(env.num_envs, env.action_dim)

        return act

    source = EnvSource("test", CONFIG, make_policy, ("proprio", "state"), num_envs=2)
    for _ in range(2):
        source.advance()
    source.restart()
    source.advance()
    source.close()
    assert all({"proprio", "state", "depth", "stereo_rgb"} <= names for names, _ in calls)
    assert [begins.tolist() for _, begins in calls] == [[True, True], [False] * 2, [True, False]]


@pytest.fixture
def run():
    depth = TensorSpec("depth", (CONFIG.camera.height, CONFIG.camera.width), "int16")
    layout = RunLayout(
        EnvSpecs((depth,), 2, 0.1, EPISODE_FIELDS, view_specs(load_robot())), 4, ((0, 2), (2, 4))
    )
    run_id = f"test-view-{secrets.token_hex(4)}"
    segment = Segment.create(run_id, layout)
    yield run_id, segment
    segment.close()


def test_a_running_training_is_watched_without_touching_it(run):
    run_id, segment = run
    clock = itertools.count(100.0)
    source = RunSource(run_id, CONFIG, env=3, clock=lambda: next(clock))
    assert (source.num_envs, source.groups, source.is_driven) == (4, ("depth",), False)
    assert source.moment() is None
    worker = WorkerTelemetry(segment.telemetry, 1)
    assert worker.wanted_env(2, 4) == 3
    segment.tensors["depth"][0, 3] = 700
    segment.tensors["reward"][0, 3] = 0.5
    tensors = {name: tensor.clone() for name, tensor in segment.tensors.items()}
    worker.show(3, VIEW)
    seen = source.moment()
    assert seen.env == 3 and seen.reward == 0.5
    assert (seen.images["depth"] == 700).all()
    for name in ("joint_position", "object_pose", "goal"):
        assert torch.equal(getattr(seen, name), VIEW[name])
    source.select(0)
    assert source.moment() is None  # until its worker shows it
    for name, tensor in tensors.items():
        assert torch.equal(segment.tensors[name], tensor)
    assert not source.has_ended
    segment.close()
    assert source.has_ended
    source.close()


def test_the_successor_of_a_worker_that_died_while_it_was_showing_is_seen(run):
    run_id, segment = run
    source = RunSource(run_id, CONFIG, env=3)
    worker = WorkerTelemetry(segment.telemetry, 1)
    worker.show(3, VIEW)
    worker.count(view_sequence=worker.counter("view_sequence") + 1)
    assert source.moment() is None
    for _ in range(2):
        WorkerTelemetry(segment.telemetry, 1).show(3, VIEW)
        assert source.moment() is not None
    source.close()


def test_an_environment_that_is_not_there_is_refused(run):
    with pytest.raises(ConfigError, match=r"environment 4 is not in 0\.\.3"):
        RunSource(run[0], CONFIG, env=4)


def test_an_address_that_is_not_ours_is_refused(source):
    with pytest.raises(ConfigError, match=r"cannot listen on 203\.0\.113\.1"):
        Viewer(source, CONFIG, host="203.0.113.1", port=0)
