import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.robot.grasp_synthesis import (
    GraspSynthesis,
    Shapes,
    random_shapes,
    surface,
    synthesise,
)
from dexgrasp_sim.robot.hand_pca import HandPca, fit, read_hand_pca
from dexgrasp_sim.robot.kinematics import Kinematics
from dexgrasp_sim.robot.robot import load_robot

ROBOT = load_robot()
FINGERTIPS = ROBOT.fingertips
HAND_CURLED = ROBOT.flat_hand
HAND_JOINTS = ROBOT.hand_joints
HAND_REST = ROBOT.postures["reset"][ROBOT.hand]
JOINT_NAMES = ROBOT.joint_names
PCA = ROBOT.fabric.hand_pca
PCA_PATH = ROBOT.path.with_name("hand_pca.yaml")

SCRIPT = Path(__file__).parents[4] / "scripts" / "compute_hand_pca.py"
SMALL = GraspSynthesis(count=96, iterations=200)


@pytest.fixture(scope="module")
def grasps():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield synthesise(ROBOT, SMALL)
    torch.set_num_threads(threads)


def test_the_committed_axes_are_orthonormal_and_hold_the_hand_at_reset():
    pca = PCA
    assert pca.axes.shape == (5, 16) and pca.axes.dtype == torch.float32
    assert torch.allclose(pca.axes @ pca.axes.mT, torch.eye(5), atol=1e-5)
    assert (pca.lower < pca.upper).all()
    rest = pca.axes @ torch.tensor(HAND_REST)
    assert (rest >= pca.lower - 1e-4).all() and (rest <= pca.upper + 1e-4).all()
    assert 0.9 < pca.explained < 1.0


def test_the_first_component_closes_all_fingers():
    first = PCA.axes[0]
    fingers = ("index", "middle", "ring")
    flexion = [HAND_JOINTS.index(f"{f}_joint_{i}") for f in fingers for i in (1, 2, 3)]
    assert (first[flexion] > 0.1).all()
    others = [i for i in range(16) if i not in flexion]
    assert first[others].abs().max() < 0.1


def test_a_file_may_name_the_joints_in_any_order():
    values = yaml.safe_load(PCA_PATH.read_text(encoding="utf-8"))
    turned = {
        **values,
        "joints": values["joints"][::-1],
        "axes": [row[::-1] for row in values["axes"]],
    }
    assert torch.equal(HandPca.from_dict(turned, HAND_JOINTS).axes, PCA.axes)
    assert HandPca.from_dict(values, HAND_JOINTS).to_dict() == values


@pytest.mark.parametrize(
    ("change", "message"),
    [({"joints": ["a", "b"]}, "must be"), ({"axes": [[1.0] * 16] * 5}, "off orthonormal")],
)
def test_a_file_of_another_hand_is_refused(tmp_path, change, message):
    values = {**yaml.safe_load(PCA_PATH.read_text(encoding="utf-8")), **change}
    path = tmp_path / "hand_pca.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"{path}: .*{message}.*; compute it anew"):
        read_hand_pca(path, HAND_JOINTS)


def test_fit_finds_the_directions_that_the_data_have():
    rng = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(16, 5, generator=rng))[0].mT
    weights = torch.randn(400, 5, generator=rng) * torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    flat, rest = torch.tensor(HAND_CURLED), torch.tensor(HAND_REST)
    pca = fit(flat + weights @ directions, flat, rest, HAND_JOINTS)
    assert pca.explained == pytest.approx(1.0)
    overlap = pca.axes @ directions.mT
    assert torch.linalg.svdvals(overlap).min() > 0.9999  # the same space
    assert overlap.abs().argmax(1).tolist() == [0, 1, 2, 3, 4]
    assert (pca.axes.gather(1, pca.axes.abs().argmax(1, keepdim=True)) > 0).all()


def test_distances_to_shapes():
    """A box of 2 x 4 x 6 cm, a sphere of 3 cm radius, the latter turned, which changes nothing."""
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    shapes = Shapes(
        torch.tensor([[0.01, 0.02, 0.03], [0.0, 0.0, 0.0]]),
        torch.tensor([[0.0], [0.03]]),
        torch.stack((torch.eye(3), turn)),
    )
    points = torch.tensor([[0.05, 0.0, 0.0], [0.04, 0.06, 0.0], [0.005, 0.0, 0.0]]).repeat(2, 1, 1)
    found = surface(shapes, points)
    box = [0.04, 0.05, -0.005]
    sphere = [0.02, math.hypot(0.04, 0.06) - 0.03, -0.025]
    assert found.distance.flatten().tolist() == pytest.approx(box + sphere, abs=1e-6)
    assert found.normal[0].flatten().tolist() == pytest.approx([1, 0, 0, 0.6, 0.8, 0, 1, 0, 0])
    assert torch.allclose(found.normal[1, 1], points[1, 1] / points[1, 1].norm(), atol=1e-5)


def test_shapes_are_as_wide_as_they_should_be():
    shapes = random_shapes(300, torch.Generator().manual_seed(0))
    wide = 2 * (shapes.half_size.amax(1) + shapes.radius[:, 0])
    assert wide.min() > 0.015 and wide.max() < 0.32
    assert (shapes.half_size[2::3] == 0).all()  # spheres


@pytest.mark.slow
def test_grasps_are_within_the_joint_limits_and_most_shapes_are_grasped(grasps):
    assert len(grasps) > 0.8 * SMALL.count
    columns = ROBOT.joint_indices(HAND_JOINTS)
    lower, upper = (torch.from_numpy(b[columns]) for b in (ROBOT.lower, ROBOT.upper))
    assert (grasps >= lower - 1e-6).all() and (grasps <= upper + 1e-6).all()
    full = torch.zeros(len(grasps), len(JOINT_NAMES))
    full[:, columns] = grasps
    tips = Kinematics(ROBOT, FINGERTIPS).forward(full).position
    spread = (tips[:, None] - tips[:, :, None]).norm(dim=-1).amax((1, 2))
    assert spread.min() > 0.02  # no fist


@pytest.mark.slow
def test_grasps_only_depend_on_the_seed(grasps):
    assert torch.equal(synthesise(ROBOT, SMALL), grasps)
    other = synthesise(ROBOT, GraspSynthesis(count=96, iterations=5, seed=1, tolerance_m=1.0))
    assert other.shape == (96, 16)
    assert (other[: len(grasps)] - grasps[: len(other)]).abs().max() > 0.1


@pytest.mark.slow
def test_the_script_writes_a_file_like_the_committed_one(tmp_path):
    output = tmp_path / "pca.yaml"
    command = [sys.executable, str(SCRIPT), "--robot", str(ROBOT.path), "--count", "128"]
    command += ["--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "of 128 grasps" in done.stdout
    pca = read_hand_pca(output, HAND_JOINTS)
    assert torch.dot(pca.axes[0], PCA.axes[0]) > 0.97
