"""Recorded joints and images in place of a robot."""

import numpy as np
import pytest

from dexgrasp_deploy.drivers.base import DriverContext
from dexgrasp_deploy.drivers.registry import make_driver
from dexgrasp_sim.config import ConfigError


@pytest.fixture
def start(robot, clock):
    def start(kind, file, **parameters):
        driver = make_driver(kind, "replay")
        driver.configure(DriverContext(robot, clock), {"file": str(file), **parameters})
        return driver

    return start


def write_joints(path, names, time_s=(10.0, 10.5, 11.5), **arrays):
    position = np.arange(len(time_s))[:, None] + np.arange(len(names)) / 100
    values = {"names": np.array(names), "time_s": np.array(time_s), "position": position}
    np.savez(path, **values | arrays)
    return path


def test_joints_follow_their_record_by_name_and_begin_again(tmp_path, start, robot, clock):
    names = [*robot.hand_joints, *reversed(robot.arm_joints)]
    arm = start("arm", write_joints(tmp_path / "joints.npz", names))
    assert arm.joint_names == robot.arm_joints
    begin_s = clock.now_s
    columns = np.array([names.index(name) for name in robot.arm_joints]) / 100
    for passed_s, row, due_s in ((0.0, 0, 0.0), (0.4, 0, 0.0), (0.6, 1, 0.5), (1.6, 2, 1.5)):
        clock.now_s = begin_s + passed_s
        sample = arm.read()
        np.testing.assert_allclose(sample.position, row + columns)
        assert sample.stamp_s == pytest.approx(begin_s + due_s)
    arm.write(dict.fromkeys(arm.joint_names, 99.0))
    clock.now_s = begin_s + 2.25 + 0.6  # 1.5 s and one period of 0.75 s more
    assert arm.read().position[0] == pytest.approx(1 + columns[0])
    assert arm.read().stamp_s == pytest.approx(begin_s + 2.25 + 0.5)


def test_without_a_loop_the_last_measurement_gets_old(tmp_path, start, robot, clock):
    hand = start("hand", write_joints(tmp_path / "j.npz", robot.hand_joints), loop=False)
    begin_s = clock.now_s
    clock.now_s += 60.0
    assert hand.read().stamp_s == begin_s + 1.5
    assert hand.read().position[0] == 2.0


def test_velocities_are_recorded_or_differences(tmp_path, start, robot, clock):
    names, velocity = robot.arm_joints, np.full((3, 7), 4.0)
    given = start("arm", write_joints(tmp_path / "a.npz", names, velocity=velocity))
    assert given.read().velocity.tolist() == [4.0] * 7
    found = start("arm", write_joints(tmp_path / "b.npz", names, (0.0, 0.5, 1.0)))
    np.testing.assert_allclose(found.read().velocity, 2.0)


def test_joints_of_a_table(tmp_path, start, robot, clock):
    header = ",".join(["time_s", *robot.arm_joints])
    rows = [",".join([str(t), *["0.25"] * 7]) for t in (0.0, 0.1)]
    path = tmp_path / "arm.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    assert start("arm", path).read().position.tolist() == [0.25] * 7


def write_images(path, image, time_s=(0.0, 0.1)):
    lens = {"focal_px": np.array([60.0, 61.0]), "center_px": np.array([31.5, 23.5])}
    np.savez(path, time_s=np.array(time_s), image=image, **lens)
    return path


@pytest.mark.parametrize(
    "image",
    [
        np.arange(2 * 48 * 64, dtype=np.uint16).reshape(2, 48, 64),
        np.arange(2 * 2 * 48 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(2, 2, 48, 64, 3),
    ],
    ids=["depth", "pair"],
)
def test_images_come_once_each_at_their_time(tmp_path, start, clock, image):
    camera = start("camera", write_images(tmp_path / "images.npz", image))
    begin_s, first = clock.now_s, camera.read()
    np.testing.assert_array_equal(first.image, image[0])
    assert first.intrinsics.focal_px == (60.0, 61.0)
    assert (first.intrinsics.width, first.intrinsics.height) == (64, 48)
    assert camera.read() is None
    clock.now_s = begin_s + 0.11
    second = camera.read()
    np.testing.assert_array_equal(second.image, image[1])
    assert second.stamp_s == pytest.approx(begin_s + 0.1)
    assert camera.read() is None
    clock.now_s = begin_s + 0.21
    np.testing.assert_array_equal(camera.read().image, image[0])


def test_wrong_files_are_refused_in_one_line(tmp_path, start, robot):
    names = robot.arm_joints
    table = tmp_path / "t.csv"
    table.write_text("time_s,a\n0.0,x\n")
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK nothing")
    cases = [
        ("arm", "nowhere.npz", "No such file"),
        ("arm", "joints.mcap", r"must end in \.npz or \.csv"),
        ("arm", broken, r"cannot be read as \.npz"),
        ("arm", table, "could not convert"),
        ("arm", write_joints(tmp_path / "a.npz", names[:6]), "lacks iiwa7_joint_7; it has"),
        ("arm", write_joints(tmp_path / "b.npz", names, (0.0, 0.0, 1.0)), "increasing numbers"),
        (
            "arm",
            write_joints(tmp_path / "c.npz", names, position=np.full((3, 7), np.nan)),
            "finite numbers",
        ),
        ("camera", write_joints(tmp_path / "d.npz", names), "lacks image, focal_px, center_px"),
        (
            "camera",
            write_images(tmp_path / "e.npz", np.zeros((2, 48, 64), np.uint8)),
            r"`image` is uint8 \[2, 48, 64\]; depth is uint16",
        ),
    ]
    for kind, file, message in cases:
        with pytest.raises(ConfigError, match=message) as caught:
            start(kind, file)
        assert "\n" not in str(caught.value)
