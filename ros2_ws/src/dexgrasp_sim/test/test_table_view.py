"""Depth images of an empty table."""

import numpy as np
import pytest
import torch

from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.table_view import TableView


def test_a_camera_straight_above_sees_the_table_at_one_depth():
    camera = CameraConfig(4, 2, 60.0, (0.1, 0.2, 1.0), (0.1, 0.2, 0.0), up=(1, 0, 0))
    depth_m = TableView(camera, 0.3).depth_m(2, 4)
    torch.testing.assert_close(depth_m, torch.full((2, 4), 0.7))


def test_every_pixel_shows_a_point_of_the_table():
    config = GraspConfig()
    camera, top_m = config.camera, config.table.top_m
    depth_m = TableView(camera, top_m).depth_m(camera.height, camera.width).double().numpy()
    seen = depth_m < camera.far_m - 1e-3
    assert 0.3 < seen.mean() < 1.0, "the far part of the table is beyond the range"
    v, u = np.nonzero(seen)
    rays = np.stack((u, v, np.ones_like(u)), axis=1) @ np.linalg.inv(camera.intrinsics).T
    points = camera.position + depth_m[seen][:, None] * rays @ camera.rotation_ros.T
    np.testing.assert_allclose(points[:, 2], top_m, atol=1e-5)
    pixel, depth = camera.project(points)
    np.testing.assert_allclose(pixel, np.stack((u, v), axis=1), atol=1e-3)
    np.testing.assert_allclose(depth, depth_m[seen], atol=1e-5)


@pytest.mark.parametrize("look_at_m", [(1.0, 0.0, 0.5), (1.0, 0.0, 0.9)])
def test_rays_that_do_not_meet_the_table_reach_the_end_of_the_range(look_at_m):
    camera = CameraConfig(4, 4, 20.0, (0.0, 0.0, 0.5), look_at_m, far_m=2.0)
    depth_m = TableView(camera, 0.0).depth_m(4, 4)
    assert (depth_m[0] == 2.0).all()


def test_another_image_size_keeps_the_field_of_view():
    camera = CameraConfig(8, 8, 40.0, (0.0, 0.0, 1.0), (0.5, 0.0, 0.0))
    fine, coarse = (TableView(camera, 0.0).depth_m(size, size) for size in (64, 8))
    assert fine.min() == pytest.approx(coarse.min(), rel=0.1)
    assert fine.amax() == pytest.approx(coarse.amax(), rel=0.1)
