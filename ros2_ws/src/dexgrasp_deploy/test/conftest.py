"""A tiny random policy as a bundle, made once; and what replaces time and the robot."""

import pytest
import torch

from dexgrasp_deploy.drivers.base import CameraSample, DriverContext
from dexgrasp_deploy.drivers.mock import MockArm, MockCamera, MockHand
from dexgrasp_learner.bundle import load_bundle
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.export import write_bundle
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.policy import build_actor
from dexgrasp_sim.robot.kuka_allegro import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.observations import observation_spec

EPISODE_S = 1.2


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory):
    """A bundle that reads depth, remembers, predicts the object and moves a little."""
    network = NetworkConfig(
        actor_groups=("proprio", "depth"),
        memory="lstm",
        memory_size=8,
        hidden=(16,),
        fused_size=16,
        auxiliary_group="object",
    )
    config = RunConfig(network=network, task=GraspConfig(episode_s=EPISODE_S))
    specs = {name: observation_spec(config.task, name) for name in (*config.groups, "object")}
    actor = build_actor(network, specs, len(config.task.action.dimensions), seed=5).eval()
    generator = torch.Generator().manual_seed(0)
    recorded = {
        "proprio": torch.randn(20, *specs["proprio"].shape, generator=generator),
        "depth": torch.randint(0, 900, (20, *specs["depth"].shape), generator=generator).short(),
    }
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    write_bundle(folder, actor, specs, config, recorded)
    return folder


@pytest.fixture(scope="session")
def bundle(bundle_folder):
    """The same, loaded."""
    return load_bundle(bundle_folder)


@pytest.fixture(scope="session")
def robot():
    """The project's robot."""
    return load_robot()


class FakeClock:
    """Time that passes when somebody waits."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    """See FakeClock."""
    return FakeClock()


class DriverPort:
    """A robot port on the mock drivers; every command and every joint sample is kept."""

    def __init__(self, manifest, robot, clock):
        context = DriverContext(robot, clock, manifest)
        self.clock = clock
        self.drivers = [MockArm(), MockHand()]
        self.camera = MockCamera()
        for driver in (*self.drivers, self.camera):
            driver.configure(context, {})
        self.sent = []
        self.exposure = None
        self.frozen_joints = None
        self.frozen_image = None

    def joints(self):
        if self.frozen_joints is not None:
            return self.frozen_joints
        return join([driver.read() for driver in self.drivers])

    def image(self) -> CameraSample | None:
        if self.frozen_image is not None:
            return self.frozen_image
        self.exposure = self.camera.read() or self.exposure
        return self.exposure

    def send(self, positions):
        self.sent.append((self.clock.now_s, dict(positions)))
        for driver in self.drivers:
            driver.write({name: positions[name] for name in driver.joint_names})

    def wait_until(self, time_s):
        self.clock.now_s = max(self.clock.now_s, time_s)


def join(samples):
    """One joint sample of several."""
    import numpy as np

    from dexgrasp_deploy.drivers.base import JointSample

    return JointSample(
        tuple(name for sample in samples for name in sample.names),
        np.concatenate([sample.position for sample in samples]),
        np.concatenate([sample.velocity for sample in samples]),
        min(sample.stamp_s for sample in samples),
    )


@pytest.fixture
def port(bundle, robot, clock):
    """A port on fresh mock drivers."""
    return DriverPort(bundle.manifest, robot, clock)
