"""A tiny random policy as a bundle, made once; and what replaces time and the robot."""

import pytest
import torch
from torch import nn

from dexgrasp_deploy.drivers.base import CameraSample, DriverContext
from dexgrasp_deploy.drivers.mock import MockArm, MockCamera, MockHand
from dexgrasp_learner.commands.export import write_bundle
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.policy import ActorOutput, build_actor
from dexgrasp_learner.storage.bundle import load_bundle
from dexgrasp_sim.config import replace
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.episodes import EPISODE_FIELDS, RESULT_SPECS
from dexgrasp_sim.tasks.grasp.observations import observation_spec
from dexgrasp_sim.tasks.grasp.scripted import ScriptedPolicy

EPISODE_S = 1.2


@pytest.fixture(scope="module")
def one_thread():
    """For tensors that are too small for two threads to help."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
    actor = build_actor(
        network, specs, len(config.task.action_names), seed=5, view=RunConfig().table_view
    ).eval()
    generator = torch.Generator().manual_seed(0)
    recorded = {
        "proprio": torch.randn(20, *specs["proprio"].shape, generator=generator),
        "depth": torch.randint(0, 900, (20, *specs["depth"].shape), generator=generator).short(),
    }
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    write_bundle(folder, actor, specs, config, recorded)
    return folder


class ScriptedActor(nn.Module):
    """Gives the actions of one scripted episode, told by the episode time what comes next."""

    groups = ("proprio", "depth")
    memory_size = 0
    auxiliary_group = None
    actions: torch.Tensor

    def __init__(self, actions):
        super().__init__()
        self.register_buffer("actions", actions)

    def initial_memory(self, num_envs):
        return self.actions.new_zeros(2, num_envs, 0)

    def forward(self, observations, start, memory):
        steps = len(self.actions)
        step = (observations["proprio"][..., -1] * steps + 0.5).long().clamp(0, steps - 1)
        unused = 0.0 * observations["depth"].float().mean((-2, -1)).unsqueeze(-1)
        return ActorOutput(self.actions[step] + unused, memory, None)


def run_scripted_episode(task, number, groups=("proprio", "depth")):
    """Episode `number` of the training environment under the script, which grasps.

    Returns:
        Actions [T, A], the observations before each by group [T, ...], and the success.
    """
    task = replace(task, stagger_starts=False)
    env = make_grasp_env(task, 1, 0, 1, groups, env_offset=number)
    out = {spec.name: spec.empty(1) for spec in (*env.observation_specs, *RESULT_SPECS)}
    env.reset(out)
    policy = ScriptedPolicy(env)
    actions, seen = [], {name: [] for name in groups}
    for _ in range(task.episode_steps):
        for name in groups:
            seen[name].append(out[name][0].clone())
        actions.append(policy.act()[0].clone())
        env.step(actions[-1].unsqueeze(0), out)
    success = bool(out["episode"][0, EPISODE_FIELDS.index("success")])
    env.close()
    observations = {name: torch.stack(values) for name, values in seen.items()}
    return torch.stack(actions), observations, success


@pytest.fixture(scope="session")
def scripted_episode():
    """See `run_scripted_episode`."""
    return run_scripted_episode


@pytest.fixture(scope="session")
def grasping_bundle_folder(tmp_path_factory):
    """A bundle that grasps the object of the twin's episode 0 with seed 0, and no other."""
    config = RunConfig(network=NetworkConfig(actor_groups=ScriptedActor.groups))
    specs = {name: observation_spec(config.task, name) for name in ScriptedActor.groups}
    actions, observations, success = run_scripted_episode(config.task, 0)
    assert success, "the script must grasp, else the tests say nothing"
    folder = tmp_path_factory.mktemp("bundles") / "grasping"
    write_bundle(folder, ScriptedActor(actions), specs, config, observations)
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

    def receive(self):
        pass

    def joints(self):
        if self.frozen_joints is not None:
            return self.frozen_joints
        return [driver.read() for driver in self.drivers]

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


@pytest.fixture
def port(bundle, robot, clock):
    """A port on fresh mock drivers."""
    return DriverPort(bundle.manifest, robot, clock)
