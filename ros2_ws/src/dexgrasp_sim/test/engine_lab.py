"""What the tests of all physics backends share: engines of a backend, starts, and comparisons."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dexgrasp_sim.physics.backends import make_engine
from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from test_support.backends import DEVICE, device_under_test

COMPILES = pytest.mark.timeout(1200 if DEVICE == "cpu" else 300)
"""Of tests that may have to compile kernels first: on the CPU for minutes, beside other work."""
CONFIG = GraspConfig()
ROBOT = load_robot()
PREGRASP = torch.tensor(ROBOT.postures["pregrasp"])
TABLE_M = CONFIG.table.top_m
GRAVITY = 9.81
BESIDE = (-0.73, 0.28)
"""Clear of the hand, m."""
STATE = (
    "joint_position",
    "joint_velocity",
    "object_position",
    "object_quaternion",
    "object_rotation",
    "object_velocity",
    "fingertip_position",
    "grasp_center_position",
)


class Lab:
    """Makes engines of one backend and closes them."""

    def __init__(self, backend):
        self.backend, self.made = backend, []
        self.device = device_under_test(backend)

    def engine(self, config=CONFIG, count=3, threads=1, offset=0, **changes):
        """An engine for the scene of a task, with changes to the scene."""
        scene = config.scene(count, offset)
        physics = dataclasses.replace(scene.physics, backend=self.backend)
        scene = dataclasses.replace(scene, **{"physics": physics, **changes})
        self.made.append(make_engine(scene, self.device, threads))
        return self.made[-1]

    def close(self):
        for engine in self.made:
            engine.close()


def on(engine, value):
    return torch.as_tensor(value).to(engine.device)


def poses(count, height_m=0.10, seed=0):
    """[N, 7]: different places and orientations above the table."""
    generator = np.random.default_rng(seed)
    pose = torch.zeros(count, 7)
    pose[:, :3] = torch.tensor([-0.55, 0.10, TABLE_M + height_m])
    pose[:, :2] += torch.from_numpy(generator.uniform(-0.1, 0.1, (count, 2)))
    turns = Rotation.random(count, rng=generator).as_quat(scalar_first=True)
    pose[:, 3:] = torch.from_numpy(turns)
    return pose


def upright(height_m, count=1):
    """[N, 7]: beside the hand, the centre so far above the table."""
    return torch.tensor([[*BESIDE, TABLE_M + height_m, 1.0, 0.0, 0.0, 0.0]]).repeat(count, 1)


def put(engine, pose, posture=PREGRASP, ids=None):
    ids = torch.arange(engine.num_envs) if ids is None else torch.tensor(ids)
    posture = posture.expand(len(ids), -1)
    engine.reset(on(engine, ids), on(engine, posture), on(engine, pose))
    return engine


def start(engine, seed=0, **changes):
    return put(engine, poses(engine.num_envs, seed=seed, **changes))


def rest(engine, steps=1):
    for _ in range(steps):
        engine.step(on(engine, PREGRASP.repeat(engine.num_envs, 1)))
    return engine


def wild_targets(engine, steps, seed=0):
    """[steps, N, J]: the hand opens and shuts, the arm moves a little around the pregrasp."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(steps, engine.num_envs, 23, generator=generator)
    return on(engine, PREGRASP + noise * torch.tensor([0.1] * 7 + [0.6] * 16))


def snapshot(engine):
    return {name: getattr(engine, name).clone() for name in STATE}


def assert_same(engine, one, other, rows=slice(None), atol=1e-4):
    for name, value in one.items():
        if engine.exact:
            assert torch.equal(value[rows], other[name][rows]), name
        else:
            assert torch.allclose(value[rows], other[name][rows], atol=atol), name
