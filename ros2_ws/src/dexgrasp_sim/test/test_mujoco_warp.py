"""What concerns MuJoCo Warp alone; `test_engine_contract.py` has what all backends must do."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from dexgrasp_sim.config import ConfigError, parse_config
from dexgrasp_sim.objects.sets import object_set
from dexgrasp_sim.physics.backends import make_engine
from dexgrasp_sim.physics.engine import PhysicsParameters
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from engine_lab import COMPILES, CONFIG, PREGRASP, ROBOT, Lab, on, poses, put, rest, start, upright
from test_support.backends import device_under_test

mjw = pytest.importorskip("mujoco_warp")
wp = pytest.importorskip("warp")

from dexgrasp_sim.physics.mujoco.models import OBJECT, build_models  # noqa: E402
from dexgrasp_sim.physics.mujoco.parameters import ModelParameters  # noqa: E402
from dexgrasp_sim.physics.mujoco_warp.launches import start_warp  # noqa: E402
from dexgrasp_sim.physics.mujoco_warp.models import (  # noqa: E402
    build_common_model,
    common_slots,
    object_arrays,
)
from dexgrasp_sim.physics.mujoco_warp.parameters import (  # noqa: E402
    BATCHED,
    DeviceParameters,
    batched_arrays,
    give_objects,
)

slow = pytest.mark.slow
pytestmark = COMPILES


@pytest.fixture
def warp():
    lab = Lab("mujoco_warp")
    yield lab
    lab.close()


def of_each_class(per_class=2):
    """Objects of every shape class, of those with several pieces some with many."""
    classes = {}
    for item in object_set("train"):
        classes.setdefault(item.shape_class, []).append(item)
    for members in classes.values():
        members.sort(key=lambda item: len(item.solid.pieces))
    return tuple(item for members in classes.values() for item in members[-per_class:])


def with_objects(objects, **physics):
    """A task with one environment per object."""
    changed = dataclasses.replace(CONFIG.physics, **physics)
    return dataclasses.replace(CONFIG, objects=objects, physics=changed)


def run_python(code, **environment):
    command = [sys.executable, "-c", code]
    env = {**os.environ, **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


@slow
def test_warp_is_imported_by_its_own_backend_only():
    code = (
        "import sys, dexgrasp_deploy.commands.cli\n"
        "from dexgrasp_sim.environments import make_env\n"
        "make_env('grasp', {}, 1, 0, 1, ('proprio',)).close()\n"
        "assert not {'warp', 'mujoco_warp'} & {*sys.modules}, 'slow to import'\n"
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr


@slow
def test_a_cache_that_cannot_be_written_is_refused_in_one_line():
    code = (
        "from dexgrasp_sim.physics.mujoco_warp.launches import start_warp\n"
        "import torch\n"
        "start_warp(torch.device('cpu'))\n"
    )
    result = run_python(code, WARP_CACHE_PATH="/proc/no_such_folder")
    assert "ConfigError" in (line := result.stderr.splitlines()[-1])
    assert "kernel cache /proc/no_such_folder" in line and "WARP_CACHE_PATH" in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so():
    config = parse_config(GraspConfig, {"physics": {"backend": "mujoco_warp"}})
    with pytest.raises(ConfigError, match=r"'cuda:0' needs an NVIDIA GPU.*device: cpu") as error:
        make_engine(config.scene(1), "cuda:0")
    assert "\n" not in str(error.value)


def test_every_piece_of_every_object_has_a_geom_of_its_type():
    objects = object_set("train")
    slots = common_slots(objects)
    for item in objects:
        shown = slots.assign(item.solid.pieces)
        assert all(p is None or p.kind == kind for p, kind in zip(shown, slots.kinds))
        found = [id(piece) for piece in shown if piece is not None]
        assert sorted(found) == sorted(id(piece) for piece in item.solid.pieces)


@pytest.fixture(scope="module")
def randomized():
    """Device arrays and MuJoCo models of environments with random physics."""
    objects = of_each_class()
    scene = with_objects(objects).scene(len(objects))
    count = len(objects)
    host = build_common_model(scene, objects)
    on_device, warp_device = start_warp(torch.device(device_under_test("mujoco_warp")))
    with wp.ScopedDevice(warp_device):
        model = mjw.put_model(host, batch_sizes=dict.fromkeys(BATCHED, count))
        wp.synchronize_device()
    arrays = batched_arrays(model)
    ids = torch.arange(count)
    give_objects(arrays, host, object_arrays(scene, objects), ids.to(on_device))
    device = DeviceParameters(host, arrays, ROBOT)
    models = ModelParameters(build_models(scene, objects), ROBOT)
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape, low=0.5, high=2.0):
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    parameters = PhysicsParameters(
        friction_scale=drawn(),
        restitution=drawn(low=0.0, high=0.9),
        stiffness_scale=drawn(23),
        damping_scale=drawn(23),
        joint_friction_scale=drawn(23),
        object_mass_scale=drawn(),
    )
    device.set(ids.to(on_device), PhysicsParameters.nominal(count, 23, on_device))
    device.set(ids.flip(0).to(on_device), flipped(parameters, on_device))
    models.set(ids, parameters)
    found = {name: array.cpu() for name, array in arrays.items()}
    return host, found, device.object_mass.cpu(), models


def flipped(parameters, device):
    values = dataclasses.asdict(parameters)
    return PhysicsParameters(**{name: v.flip(0).to(device) for name, v in values.items()})


@pytest.mark.parametrize(
    "name", ["body_mass", "body_inertia", "body_ipos", "body_iquat", "body_invweight0"]
)
def test_objects_weigh_what_they_weigh_in_mujoco(randomized, name):
    """Also what MuJoCo derives from the mass, which its compiler computes."""
    host, arrays, mass, models = randomized
    body = host.body(OBJECT).id
    for env, model in enumerate(models.models):
        wanted = getattr(model, name)[model.body(OBJECT).id]
        np.testing.assert_allclose(arrays[name][env, body], wanted, rtol=1e-5, atol=1e-9)
    assert torch.allclose(mass, models.object_mass)


def test_joints_and_contacts_get_the_parameters_that_they_get_in_mujoco(randomized):
    host, arrays, _, models = randomized
    names = ("actuator_gainprm", "actuator_biasprm", "dof_frictionloss", "dof_invweight0")
    for env, model in enumerate(models.models):
        assert [model.actuator(i).name for i in range(model.nu)] == list(ROBOT.joint_names)
        for name in names:
            np.testing.assert_allclose(
                arrays[name][env], getattr(model, name), rtol=1e-4, atol=1e-7, err_msg=name
            )
        for name in ("geom_friction", "geom_solref"):
            for geom in (*ROBOT_GEOMS, "table", "ground", OBJECT):
                wanted = getattr(model, name)[model.geom(geom).id]
                found = arrays[name][env, host.geom(geom).id]
                np.testing.assert_allclose(found, wanted, rtol=1e-5, err_msg=f"{name} {geom}")
        subtree = arrays["body_subtreemass"][env, 0]
        assert subtree == pytest.approx(model.body_subtreemass[0], rel=1e-5)


ROBOT_GEOMS = ("thumb_link_3_1",)


@slow
def test_depth_is_that_of_the_mujoco_backend(warp):
    objects = of_each_class(3)
    config, count = with_objects(objects), len(objects)
    reference = Lab("mujoco")
    images, metres = [], []
    for lab in (reference, warp):
        engine = lab.engine(config, count)
        posture = PREGRASP + 0.2 * torch.randn(23, generator=torch.Generator().manual_seed(1))
        put(engine, poses(count, seed=3), posture)
        metres.append(engine.depth_m().cpu().clone())
        size = (count, config.camera.height, config.camera.width)
        image = torch.zeros(size, dtype=torch.int16, device=engine.device)
        engine.render_depth(image)
        images.append(image.cpu().int())
    reference.close()
    difference = (metres[0] - metres[1]).abs().flatten()
    assert torch.quantile(difference, 0.999) < 1e-4
    assert ((metres[0] > 0) != (metres[1] > 0)).double().mean() < 1e-4
    off = (images[0] - images[1]).abs()
    assert off.max() <= 1 and (off > 0).double().mean() < 0.01


@slow
def test_objects_of_all_classes_rest_where_they_rest_in_mujoco(warp):
    objects = of_each_class(2)
    config, count = with_objects(objects), len(objects)
    heights = torch.tensor([item.solid.rest_height_m for item in objects])
    pose = upright(0.002, count)
    pose[:, 2] += heights
    found = []
    reference = Lab("mujoco")
    for lab in (reference, warp):
        engine = rest(put(lab.engine(config, count), pose), 20)
        found.append((engine.object_position.cpu().clone(), engine.object_rotation.cpu().clone()))
        assert not engine.diverged.any()
    reference.close()
    assert torch.allclose(found[0][0], found[1][0], atol=2e-4)
    assert torch.allclose(found[0][1], found[1][1], atol=5e-3)


@slow
def test_neither_a_step_nor_a_reset_nor_an_image_reads_from_the_device(
    warp, no_host_reads, monkeypatch
):
    engine = start(warp.engine())
    camera = CONFIG.camera
    depth = torch.zeros(3, camera.height, camera.width, dtype=torch.int16, device=engine.device)
    rgb = torch.zeros(
        3, 2, 3, camera.height, camera.width, dtype=torch.uint8, device=engine.device
    )
    ids, keys = on(engine, [0, 2]), on(engine, [5, 6])
    values = PhysicsParameters.nominal(2, 23, engine.device)
    posture, pose = on(engine, PREGRASP.repeat(2, 1)), on(engine, poses(2))
    targets = on(engine, PREGRASP.repeat(3, 1))
    force = torch.zeros(3, 3, device=engine.device)

    def everything():
        engine.push_objects(force, force)
        engine.step(targets.expand(2, -1, -1))
        engine.set_parameters(ids, values)
        engine.randomize_looks(ids, keys)
        engine.reset(ids, posture, pose)
        engine.step(targets)
        engine.render_depth(depth)
        engine.render_stereo_rgb(rgb)

    everything()  # makes what is made once

    def refuse(self):
        raise AssertionError("reads from the device")

    monkeypatch.setattr(wp.array, "numpy", refuse)
    monkeypatch.setattr(wp, "synchronize_device", refuse)
    on_gpu = engine.device.type == "cuda"
    torch.cuda.set_sync_debug_mode("error") if on_gpu else None
    try:
        with no_host_reads:
            everything()
    finally:
        torch.cuda.set_sync_debug_mode("default") if on_gpu else None


@slow
def test_buffers_that_are_too_small_are_reported_once(warp, capfd):
    small = dataclasses.replace(CONFIG.physics.mujoco_warp, njmax=8)
    physics = dataclasses.replace(CONFIG.physics, mujoco_warp=small)
    engine = put(warp.engine(dataclasses.replace(CONFIG, physics=physics)), upright(0.05, 3))
    for _ in range(3):
        rest(engine, 4)
        put(engine, upright(0.05, 3))
    if engine.device.type == "cuda":
        torch.cuda.synchronize()
        put(engine, upright(0.05, 3))
    assert engine.overflows.counts["njmax"] >= 3 and not engine.overflows.counts["nconmax"]
    lines = [line for line in capfd.readouterr().err.splitlines() if "more contacts" in line]
    assert len(lines) == 1 and "task.physics.mujoco_warp.njmax" in lines[0]


@slow
def test_without_memory_it_says_how_many_environments_fit(warp, monkeypatch):
    make_data = mjw.make_data

    def make(host, count, **sizes):
        if count > 2:
            raise RuntimeError("Failed to allocate 4096 bytes on device 'cuda:0'")
        return make_data(host, count, **sizes)

    monkeypatch.setattr(mjw, "make_data", make)
    with pytest.raises(ConfigError, match=r"9 environments do not fit .*, 2 do; lower") as error:
        warp.engine(count=9)
    assert "\n" not in str(error.value)
