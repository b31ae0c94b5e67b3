"""Teachers of a distillation: runs and bundles, what they may see, and those that are refused."""

import pytest
import torch

from dexgrasp_learner.algorithms.teacher import Coarse
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.run.teachers import load_teacher
from dexgrasp_learner.storage.bundle import load_bundle
from dexgrasp_learner.storage.bundle_policy import BundlePolicy
from dexgrasp_sim.config import ConfigError, parse_config
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.vec_env import allocate
from test_support.bundles import random_observations, write_teachers

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Bundles of small random policies by what they read; tests must not change them."""
    parent = tmp_path_factory.mktemp("teachers")
    write_teachers(parent)
    return parent


def student(**task) -> RunConfig:
    """A student's run on 64x48 stereo images."""
    values = {"camera": {"width": 64, "height": 48}, **task}
    network = {"actor_groups": ["proprio", "stereo_rgb"], "encoder": "stereo_small"}
    return parse_config(RunConfig, {"task": values, "network": network})


def test_a_bundle_of_many_environments_acts_as_its_policy(small):
    """With memory, over episodes that begin at different steps."""
    folder, actor, specs, _ = small
    policy = BundlePolicy(load_bundle(folder))
    assert (policy.groups, policy.action_dim) == (actor.groups, actor.action_dim)
    steps, envs = 4, 5
    drawn = random_observations(specs, actor.groups, steps * envs)
    observed = {name: values.unflatten(0, (steps, envs)) for name, values in drawn.items()}
    start = torch.rand(steps, envs, generator=torch.Generator().manual_seed(0)) < 0.4
    memory, own = policy.initial_memory(envs), actor.initial_memory(envs)
    assert start[1:].any() and policy.memory_size == actor.memory_size > 0
    for step in range(steps):
        now = {name: values[step : step + 1] for name, values in observed.items()}
        with torch.no_grad():
            expected = actor(now, start[step : step + 1], own)
        found = policy(now, start[step : step + 1], memory)
        own, memory = expected.memory, found.memory
        torch.testing.assert_close(found.mean, expected.mean.clamp(-1, 1), atol=1e-4, rtol=0)
        torch.testing.assert_close(found.auxiliary, expected.auxiliary, atol=1e-4, rtol=0)
        torch.testing.assert_close(memory, own, atol=1e-4, rtol=0)


def test_a_coarse_teacher_sees_what_its_own_camera_would_show():
    """Every third pixel of an image of 96x72 is an image of 32x24."""

    def seen(width, height):
        task = student(camera={"width": width, "height": height}).task
        env = make_grasp_env(task, 3, 1, 1, ("depth",))
        out = allocate(env)
        env.reset(out)
        env.close()
        return out["depth"][None]

    class Records:
        groups, action_dim, memory_size = ("depth",), 1, 0

        def __call__(self, observations, start, memory):
            return observations["depth"]

    coarse = Coarse(Records(), {"depth": (24, 32)})  # pyright: ignore[reportArgumentType]
    nothing = torch.zeros(0)
    assert torch.equal(coarse({"depth": seen(96, 72)}, nothing, nothing), seen(32, 24))


def test_a_depth_bundle_teaches_a_student_with_larger_images(bundles, capsys):
    teacher = load_teacher(bundles / "depth", student())
    assert isinstance(teacher, Coarse) and teacher.groups == ("proprio", "depth")
    assert capsys.readouterr().err == ""


def test_what_no_sensor_measures_is_said_in_one_line(bundles, capsys):
    assert isinstance(load_teacher(bundles / "state", student()), BundlePolicy)
    (line,) = capsys.readouterr().err.splitlines()
    assert "reads state, which no sensor measures" in line


@pytest.mark.parametrize(
    ("task", "teacher", "message"),
    [
        (
            {"action": {"kind": "fabric"}},
            "state",
            "velocity .* this run fabric",
        ),
        ({"action": {"palm_speed_m_s": 0.2}}, "state", "its `task.action` or .* differs"),
        ({"control_hz": 30.0}, "state", "its `task.action` or `task.control_hz` differs"),
        ({"robot": "franka_leap"}, "state", "it drives .*, this run .*; use the same robot"),
        ({"camera": {"width": 16, "height": 12}}, "depth", "depth image of 32x24 is larger"),
        ({"camera": {"fovy_deg": 40.0}}, "depth", "its camera is elsewhere"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(bundles, task, teacher, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_teacher(bundles / teacher, student(**task))
    assert "\n" not in str(caught.value)
