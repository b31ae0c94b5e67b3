"""The lowest points of objects in any attitude."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dexgrasp_sim.objects.config import ObjectConfig, PartConfig
from dexgrasp_sim.objects.lowest_points import LowestPoints
from dexgrasp_sim.objects.sets import object_set

CORNERS = ((0.0, 0, 0), (0.06, 0, 0), (0, 0.08, 0), (0, 0, 0.05), (0.02, 0.03, 0.06))
OBJECTS = (
    ObjectConfig("box", "box", (0.06, 0.04, 0.10)),
    ObjectConfig("cylinder", "cylinder", (0.06, 0.10)),
    ObjectConfig("sphere", "sphere", (0.07,)),
    ObjectConfig("capsule", "capsule", (0.04, 0.12)),
    ObjectConfig("ellipsoid", "ellipsoid", (0.04, 0.06, 0.09)),
    ObjectConfig("hull", "hull", points_m=CORNERS),
    ObjectConfig(
        "compound",
        "compound",
        parts=(
            PartConfig("cylinder", (0.05, 0.09), (0.0, 0.0, 0.0), (0.3, 0.1, 0.0)),
            PartConfig("box", (0.03, 0.02, 0.05), (0.04, 0.0, 0.01), (0.0, 0.7, 0.2)),
        ),
    ),
)


def below_center(objects, rotations):
    """[N] m for the objects in turn, [N, 3, 3]."""
    of_env = torch.arange(len(rotations)) % len(objects)
    points = LowestPoints([item.solid for item in objects], of_env)
    return points.below_center(torch.from_numpy(np.stack(rotations)).float()).numpy()


@given(st.integers(0, 2**31))
def test_no_attitude_hides_a_lower_point(seed):
    """The bounds of the turned pieces, which `Piece` works out otherwise."""
    rotations = Rotation.random(len(OBJECTS), rng=np.random.default_rng(seed)).as_matrix()
    for item, turn, below in zip(OBJECTS, rotations, below_center(OBJECTS, rotations)):
        turned = (
            replace(piece, position=turn @ piece.position, rotation=turn @ piece.rotation)
            for piece in item.solid.pieces
        )
        lowest = min(piece.bounds()[0][2] for piece in turned)
        assert below == pytest.approx(-lowest, abs=1e-6)


def test_upright_objects_rest_on_their_lowest_point():
    for objects in (OBJECTS, object_set("train")):
        upright = [np.eye(3)] * len(objects)
        rest = [item.solid.rest_height_m for item in objects]
        np.testing.assert_allclose(below_center(objects, upright), rest, atol=1e-6)


def test_a_lying_cylinder_by_hand():
    lying = Rotation.from_rotvec(np.deg2rad([[0, 0, 0], [90, 0, 0], [45, 0, 0]])).as_matrix()
    expected = [0.05, 0.03, (0.05 + 0.03) / np.sqrt(2)]
    np.testing.assert_allclose(below_center(OBJECTS[1:2], lying), expected, atol=1e-6)
