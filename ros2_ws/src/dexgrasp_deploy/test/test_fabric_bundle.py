"""A policy that was trained with the fabric, on the simulated robot."""

from functools import partial

import numpy as np
import pytest
import torch

from dexgrasp_deploy.control.config import ControlConfig
from dexgrasp_deploy.control.control_loop import ControlLoop
from dexgrasp_deploy.control.episode import Reason, State
from dexgrasp_deploy.control.observation import PolicyObserver
from dexgrasp_deploy.control.policy_runtime import PolicyRuntime
from dexgrasp_deploy.control.sensing.streams import FreshnessConfig, Measurement
from dexgrasp_deploy.drivers.base import CameraSample, DriverContext, JointSample
from dexgrasp_deploy.drivers.sim import SimArm, SimHand, SimWorld
from dexgrasp_learner.commands.export import record_episode, write_bundle
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.policy import build_actor
from dexgrasp_learner.storage.bundle import load_bundle
from dexgrasp_sim.config import parse_config, replace
from dexgrasp_sim.control.decoder import make_decoder
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.tasks.grasp.episodes import RESULT_SPECS
from dexgrasp_sim.tasks.grasp.observations import observation_spec

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 60
TASK = parse_config(
    GraspConfig,
    {
        "control_hz": 60.0,
        "episode_s": STEPS / 60,
        "stagger_starts": False,
        "difficulty": 0.5,
        "physics": {"actuator_gains": "paper"},
        "action": {
            "kind": "fabric",
            "damping_per_s": {"initial": 10, "final": 20},
            "velocity_target_factor": {"initial": 0.5, "final": 0},
        },
    },
)
ON_A_ROBOT = replace(TASK, action=replace(TASK.action, velocity_target_factor=0.0))
"""The same without velocity targets, which no robot gets."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A random policy of the fabric task, exported as a training run's is."""
    network = NetworkConfig(actor_groups=("proprio",), hidden=(16,))
    config = RunConfig(network=network, task=TASK)
    specs = {"proprio": observation_spec(TASK, "proprio")}
    actor = build_actor(
        network, specs, len(TASK.action_names), seed=3, view=RunConfig().table_view
    ).eval()
    folder = tmp_path_factory.mktemp("bundles") / "fabric"
    recorded = record_episode(actor, TASK, seed=0, steps=20)
    write_bundle(folder, actor, specs, config, recorded)
    return load_bundle(folder)


class WorldPort:
    """A robot port on the joints of the simulated world, without latency; counts commands."""

    def __init__(self, manifest, robot, clock):
        self.clock, self.names, self.sent = clock, robot.joint_names, []
        context = DriverContext(robot, clock, manifest)
        self.drivers = [SimArm(), SimHand()]
        for driver in self.drivers:
            driver.configure(context, {})
        self.world = context.shared(SimWorld)

    def receive(self):
        pass

    def joints(self):
        self.world.advance()
        return [self.world.read(self.names)]

    def image(self) -> CameraSample | None:
        return None

    def send(self, positions):
        self.sent.append([positions[name] for name in self.names])
        self.world.write(positions)

    def wait_until(self, time_s):
        while self.clock.now_s < time_s:
            self.clock.now_s = min(time_s, self.clock.now_s + 1 / 120)
            self.world.advance()


class Replay:
    """Stands where a policy runtime does: gives recorded actions, keeps what it is shown."""

    def __init__(self, manifest, actions):
        self.manifest, self.actions, self.seen = manifest, actions, []

    def reset(self):
        self.seen.clear()

    def act(self, observations):
        self.seen.append(observations["proprio"])
        return self.actions[len(self.seen) - 1], None


def run(loop):
    loop.start()
    loop.run(stop=lambda: not loop.episode.active)


def test_bundle_records_the_damping_that_the_policy_was_trained_with(bundle, robot):
    manifest = bundle.manifest
    assert manifest.action_names == TASK.action_names
    assert manifest.task.action.damping_per_s.at(manifest.task.difficulty) == 15.0
    loop = ControlLoop(PolicyRuntime(bundle), robot, None, lambda: 0.0, ControlConfig())  # type: ignore[arg-type]
    assert loop._policy.decoder.damping.tolist() == [15.0]


def test_a_real_bundle_runs_on_the_simulated_robot(bundle, robot, clock):
    port = WorldPort(bundle.manifest, robot, clock)
    loop = ControlLoop(PolicyRuntime(bundle), robot, port, clock, ControlConfig())
    run(loop)
    assert (loop.episode.state, loop.episode.reason) == (State.HOLD, Reason.TIME_UP)
    assert loop.progress.steps == STEPS and loop.progress.deadline_misses == 0
    assert loop.progress.clamped_commands == 0
    moved = np.array(port.sent[-1]) - bundle.manifest.robot.start_position_rad
    assert np.abs(moved).max() > 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "control_hz"), [(0, 60.0), (1, 60.0), (2, 60.0), (3, 15.0)])
def test_robot_and_training_do_the_same_and_safety_changes_nothing(
    bundle, robot, clock, seed, control_hz
):
    """With goals that jump from one extreme to another, bit for bit up to float64.

    At 15 Hz, too, the robot gets the targets of all fabric steps, four in each control period.
    """
    task = replace(ON_A_ROBOT, control_hz=control_hz, episode_s=STEPS / control_hz)
    manifest = replace(bundle.manifest, task=task)
    generator = torch.Generator().manual_seed(seed)
    goals = torch.sign(torch.randn(STEPS, 11, generator=generator))
    actions = goals[torch.arange(STEPS) // 20 * 20]
    env = make_grasp_env(task, 1, 0, 1, ("proprio",))
    out = {spec.name: spec.empty(1) for spec in (*env.observation_specs, *RESULT_SPECS)}
    env.reset(out)
    expected, targets = [], []
    for action in actions:
        expected.append(out["proprio"][0].clone().numpy())
        env.step(action[None], out)
        targets.extend(env.decoder.path[:, 0].numpy())
    port, policy = WorldPort(manifest, robot, clock), Replay(manifest, actions.numpy())
    loop = ControlLoop(policy, robot, port, clock, ControlConfig())
    run(loop)
    assert loop.progress.steps == STEPS and loop.progress.clamped_commands == 0
    np.testing.assert_allclose(policy.seen, expected, atol=1e-6)
    # after its last step the environment holds the target of its next episode
    commands = STEPS * env.decoder.steps_per_period
    np.testing.assert_allclose(port.sent[-commands:][: len(targets) - 1], targets[:-1], atol=1e-6)
    assert len(targets) - 1 == commands - env.decoder.steps_per_period


def test_in_shadow_mode_the_fabric_begins_where_the_robot_stands(bundle, robot, clock):
    port = WorldPort(bundle.manifest, robot, clock)
    start = np.array(bundle.manifest.robot.start_position_rad)
    away = start.copy()
    away[:7] -= 0.1
    sample = partial(JointSample, tuple(robot.joint_names), velocity=np.zeros(23))
    port.joints = lambda: [sample(position=away, stamp_s=clock())]
    loop = ControlLoop(PolicyRuntime(bundle), robot, port, clock, ControlConfig())
    loop.start(shadow=True)
    loop.tick()
    assert loop.episode.state is State.GRASP
    target = loop._policy.decoder.target[0].double()
    assert torch.allclose(target, torch.from_numpy(away), atol=1e-6)
    loop.tick()
    assert loop.progress.steps == 1 and not port.sent


def test_a_posture_inside_an_obstacle_is_a_fault_in_shadow_mode(bundle, robot, clock):
    port = WorldPort(bundle.manifest, robot, clock)
    flat = np.array(bundle.manifest.robot.start_position_rad)
    flat[:7] = [0, -1.9, 0, 0, 0, 0, 0]  # the arm reaches down through the table
    sample = partial(JointSample, tuple(robot.joint_names), velocity=np.zeros(23))
    port.joints = lambda: [sample(position=flat, stamp_s=clock())]
    decoder = make_decoder(TASK.action, robot, 1, TASK.control_dt_s, TASK.table_obstacle)
    assert not decoder.can_start(torch.from_numpy(flat).float()[None]).item()
    loop = ControlLoop(PolicyRuntime(bundle), robot, port, clock, ControlConfig())
    loop.start(shadow=True)
    loop.tick()
    assert loop.episode.state is State.FAULT
    assert loop.episode.reason is Reason.IN_OBSTACLE and not port.sent


def test_velocities_that_training_blanked_are_blanked_on_the_robot(bundle, robot):
    noise = replace(TASK.observation_noise, joint_velocities=False)
    blind = replace(bundle.manifest, task=replace(TASK, observation_noise=noise))
    decoder = make_decoder(TASK.action, robot, 1, TASK.control_dt_s, TASK.table_obstacle)
    position = decoder.start_position.double().numpy()
    last = np.zeros(11, np.float32)
    for manifest, speed in ((bundle.manifest, 0.5), (blind, 0.0)):
        observer = PolicyObserver(manifest, robot, FreshnessConfig())
        measured = Measurement(position, np.full(23, 0.5), np.full(23, np.nan), 0.0)
        seen = observer.observe(measured, None, decoder, last, 0.0)
        assert seen["proprio"][23:30].tolist() == [speed] * 7
