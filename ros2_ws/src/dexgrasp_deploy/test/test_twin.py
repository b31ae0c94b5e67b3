"""The simulated twin behind the drivers is the training environment, up to sensor timing."""

from functools import partial

import numpy as np
import pytest

from dexgrasp_deploy.control.config import ControlConfig
from dexgrasp_deploy.control.control_loop import ControlLoop
from dexgrasp_deploy.control.episode import Reason
from dexgrasp_deploy.control.judge import GraspJudge
from dexgrasp_deploy.drivers.base import DriverContext, JointSample, Level
from dexgrasp_deploy.drivers.sim import SimArm, SimCamera, SimHand, SimWorld
from dexgrasp_sim.config import ConfigError, parse_config, replace, to_dict
from dexgrasp_sim.tasks.grasp.config import GraspConfig

GROUPS = ("proprio", "depth")


@pytest.fixture(scope="session")
def manifest(bundle):
    """The tiny bundle's manifest with episodes long enough to grasp."""
    return replace(bundle.manifest, task=replace(GraspConfig(), stagger_starts=False))


class TwinPort:
    """A robot port on the drivers of the twin, without latency."""

    def __init__(self, manifest, robot, clock):
        self.clock = clock
        context = DriverContext(robot, clock, manifest)
        self.arm, self.hand, self.camera = SimArm(), SimHand(), SimCamera()
        for driver in (self.arm, self.hand, self.camera):
            driver.configure(context, {})
        self.world = context.shared(SimWorld)
        self.judge = self.exposure = None

    def receive(self):
        pass

    def joints(self):
        return [self.joined()]

    def joined(self):
        arm, hand = self.arm.read(), self.hand.read()
        return JointSample(
            arm.names + hand.names,
            np.concatenate((arm.position, hand.position)),
            np.concatenate((arm.velocity, hand.velocity)),
            arm.stamp_s,
        )

    def image(self):
        self.camera.observe(self.joined(), self.world.object_pose, self.world.object.name)
        self.exposure = self.camera.read() or self.exposure
        return self.exposure

    def send(self, positions):
        self.arm.write(positions)
        self.hand.write(positions)

    def wait_until(self, time_s):
        while self.clock.now_s < time_s:
            self.clock.now_s = min(time_s, self.clock.now_s + 1 / 120)
            self.world.advance()
            if self.judge is not None:
                self.judge.observe(self.world.object_pose, self.clock.now_s)


class Replay:
    """Stands where a policy runtime does: gives recorded actions, keeps what it is shown."""

    def __init__(self, manifest, actions):
        self.manifest, self.actions, self.seen = manifest, actions, []

    def reset(self):
        self.seen.clear()

    def act(self, observations):
        self.seen.append(observations)
        return self.actions[len(self.seen) - 1], None


def has_ended(loop):
    return not loop.episode.active


@pytest.mark.slow
def test_same_actions_give_the_same_episode_as_in_training(
    manifest, robot, clock, scripted_episode
):
    # the filter must not touch the scripted policy's hard starts, which training does not limit
    config = ControlConfig(safety={"full_speed_time_s": 0.02})
    port = TwinPort(manifest, robot, clock)
    for number in range(3):
        actions, expected, success = scripted_episode(manifest.task, number)
        port.world.reset()
        port.judge = GraspJudge(robot, manifest.task, port.world.object.name)
        policy = Replay(manifest, actions.numpy())
        loop = ControlLoop(policy, robot, port, clock, config)
        loop.start()
        loop.run(stop=partial(has_ended, loop))
        assert loop.episode.reason is Reason.TIME_UP
        assert loop.progress.clamped_commands == 0
        assert success, "the script must grasp, else the test says nothing"
        assert port.judge.success(port.joined())
        # until the fingers touch: contact is chaotic
        for step in range(20):
            seen = policy.seen[step]
            trained = {name: values[step].numpy() for name, values in expected.items()}
            np.testing.assert_allclose(seen["proprio"], trained["proprio"], atol=1e-4)
            off = np.abs(seen["depth"].astype(int) - trained["depth"]) > 5
            assert off.sum() <= 5, "only pixels on an edge may differ"


def test_episodes_follow_the_seed(manifest, robot, clock):
    def episodes(seed):
        world = SimWorld(DriverContext(robot, clock, manifest, seed=seed))
        poses = []
        for _ in range(4):
            world.reset()
            poses.append((world.object.name, world.object_pose.round(6).tolist()))
        return poses

    first = episodes(0)
    assert [name for name, _ in first] == ["box", "cylinder", "sphere", "box"]
    assert episodes(0) == first
    assert episodes(1) != first
    assert first[0] != first[3]


def test_new_seed_begins_its_sequence(manifest, robot, clock):
    world = SimWorld(DriverContext(robot, clock, manifest, seed=0))
    world.reset()
    world.reset()
    assert world.episode == 1
    world.reset(seed=7)
    assert (world.seed, world.episode) == (7, 0)
    world.reset(seed=7)
    assert world.episode == 1


def test_world_follows_the_clock_and_reports_lost_time(manifest, robot, clock):
    context = DriverContext(robot, clock, manifest)
    arm = SimArm()
    arm.configure(context, {})
    begun_s = arm.read().stamp_s
    clock.now_s += 0.1
    assert arm.read().stamp_s - begun_s == pytest.approx(0.1, abs=1 / 120)
    assert arm.health().level is Level.OK
    clock.now_s += 2.0
    assert arm.read().stamp_s == pytest.approx(clock.now_s, abs=1 / 120)
    assert arm.health().level is Level.WARN
    assert "lost 1.7" in arm.health().message


def test_command_moves_the_named_joint(manifest, robot, clock):
    port = TwinPort(manifest, robot, clock)
    before = port.joined()
    place = before.names.index("iiwa7_joint_2")
    target = float(before.position[place] + 0.1)
    port.send({"iiwa7_joint_2": target})
    port.wait_until(clock.now_s + 1.0)
    moved = port.joined().position - before.position
    assert moved[place] == pytest.approx(0.1, abs=0.01)
    assert np.abs(np.delete(moved, place)).max() < 0.01


def test_camera_sees_the_object_it_is_told_about(manifest, robot, clock):
    port = TwinPort(manifest, robot, clock)
    port.world.reset()
    first = port.image()
    assert first.image.shape == (24, 32)
    assert first.image.dtype == np.uint16
    assert first.stamp_s == port.joined().stamp_s
    assert port.camera.read() is None, "an exposure is given once"
    clock.now_s += 0.001
    port.camera.observe(port.joined(), port.world.object_pose, "box")
    assert port.camera.read() is None, "not faster than the rate"
    clock.now_s += 1.0
    away = port.world.object_pose + np.array([0.0, 0.0, 5.0, 0, 0, 0, 0])
    port.camera.observe(port.joined(), away, "box")
    assert (port.camera.read().image != first.image).any()
    with pytest.raises(ValueError, match="no object 'teapot'"):
        clock.now_s += 1.0
        port.camera.observe(port.joined(), away, "teapot")
    port.camera.deactivate()


def test_a_policy_trained_on_a_gpu_has_the_twin_of_one_trained_on_a_cpu(manifest, robot, clock):
    physics = replace(manifest.task.physics, backend="mujoco_warp")
    of_gpu = replace(manifest, task=replace(manifest.task, physics=physics))
    ports = [TwinPort(each, robot, clock) for each in (manifest, of_gpu)]
    one, other = (port.image().image for port in ports)
    np.testing.assert_array_equal(one, other)
    one, other = (port.world.object_pose for port in ports)
    np.testing.assert_array_equal(one, other)


def test_stereo_camera(manifest, robot, clock):
    camera = SimCamera()
    camera.configure(DriverContext(robot, clock, manifest), {"kind": "stereo_rgb"})
    world = SimWorld(DriverContext(robot, clock, manifest))
    camera.observe(world.read(robot.joint_names), world.object_pose, world.object.name)
    image = camera.read().image
    assert image.shape == (2, 24, 32, 3)
    assert image.dtype == np.uint8
    assert (image[0] != image[1]).any()


@pytest.mark.slow
def test_camera_is_as_imperfect_as_in_training(manifest, robot, clock):
    """Noise of its own in each exposure, and a camera pose that is a little off all the time."""
    noise = {"depth_sigma_per_m": 0.01, "dropout_share": 0.01}
    world = SimWorld(DriverContext(robot, clock, manifest))

    def exposures(image):
        task = parse_config(GraspConfig, {**to_dict(manifest.task), "image": image})
        camera = SimCamera()
        context = DriverContext(robot, clock, replace(manifest, task=task))
        camera.configure(context, {"kind": "depth"})
        images = []
        for _ in range(2):
            clock.now_s += 1.0
            world.advance()
            camera.observe(world.read(robot.joint_names), world.object_pose, world.object.name)
            images.append(camera.read().image.astype(int))
        camera.deactivate()
        return images

    clean, again = exposures({})
    first, second = exposures({"depth_noise": noise})
    both = (first > 0) & (second > 0) & (clean > 0)
    assert np.abs(clean - again).max() <= 1
    assert 0.002 < ((first - clean)[both] / 1000).std() < 0.02
    assert (first != second).mean() > 0.5 and (first == 0).mean() - (clean == 0).mean() > 0.005
    off, same = exposures({"camera_jitter": {"position_m": 0.03, "rotation_rad": 0.05}})
    assert (off != clean).mean() > 0.5 and np.abs(off - same).max() <= 1


def test_wrong_camera_parameters_are_named(manifest, robot, clock):
    context = DriverContext(robot, clock, manifest)
    with pytest.raises(ConfigError, match=r"camera.*`kind` = 'rgb'"):
        SimCamera().configure(context, {"kind": "rgb"})
    with pytest.raises(ConfigError, match="greater than 0"):
        SimCamera().configure(context, {"rate_hz": -1.0})
    with pytest.raises(ConfigError, match="needs a policy bundle"):
        SimArm().configure(DriverContext(robot, clock), {})
