import itertools

import numpy as np
import pytest
import torch

from builders import SHORT, Play
from dexgrasp_sim.config import ConfigError, parse_config
from dexgrasp_sim.random_streams import RandomStreams
from dexgrasp_sim.tasks.grasp.config import GraspConfig
from dexgrasp_sim.vision.camera import CameraConfig
from dexgrasp_sim.vision.camera_jitter import CameraJitter, CameraPoses
from dexgrasp_sim.vision.image_config import CameraJitterConfig

CAMERA = CameraConfig(
    width=32, height=24, fovy_deg=40.0, position_m=(-1.0, 0.4, 0.6), look_at_m=(-0.5, 0.1, 0.3)
)
BASELINE_M = 0.06
TASK = {**SHORT, "stagger_starts": True}
GROUPS = ("depth", "stereo_rgb")
IMAGE = {
    "depth_noise": {
        "disparity_sigma_px": 0.2,
        "disparity_bias_px": 0.2,
        "shadow_share": 0.9,
        "edge_hole_px": 3.0,
        "dropout_share": 0.01,
        "speckles": 2.0,
        "sticks": 2.0,
    },
    "rgb": {"exposure": 0.3, "hue": 0.05, "motion_blur": 0.05, "read_noise": 2.0},
    "look": {
        "color": 0.5,
        "pattern": 0.5,
        "cell_factor": 2.0,
        "light_rad": 0.5,
        "ambient": 0.2,
        "background": 0.5,
    },
    "camera_jitter": {
        "position_m": 0.01,
        "rotation_rad": 0.02,
        "stereo_position_m": 0.002,
        "stereo_rotation_rad": 0.01,
    },
}


def jitter_of(count, seed=0, **config):
    streams = RandomStreams(seed, torch.arange(count))
    return CameraJitter(CameraJitterConfig(**config), CAMERA, BASELINE_M, streams)


def poses(count=500, seed=0, episode=1, **config):
    jitter = jitter_of(count, seed, **config)
    jitter.begin(torch.arange(count), torch.full((count,), episode))
    return CameraPoses(jitter.position.numpy(), jitter.rotation.numpy())


def play(num_envs, image, threads=1, env_offset=0):
    return Play(num_envs, {**TASK, "image": image}, GROUPS, threads=threads, env_offset=env_offset)


def assert_equal(one, other):
    for name in GROUPS:
        assert torch.equal(one[name], other[name]), name


def test_without_strengths_the_cameras_are_where_the_config_says():
    left, right = CAMERA.stereo_pair(BASELINE_M)
    position, rotation = poses(3)
    for side, camera in enumerate((left, right)):
        np.testing.assert_allclose(position[:, side], np.tile(camera.position, (3, 1)), atol=1e-12)
        np.testing.assert_allclose(rotation[:, side] - camera.rotation, 0, atol=1e-12)


def test_positions_fill_a_cube_and_the_rig_stays_rigid():
    position, rotation = poses(position_m=0.03)
    offset = position[:, 0] - CAMERA.position
    assert np.abs(offset).max() <= 0.03
    assert (offset.min(0) < -0.028).all() and (offset.max(0) > 0.028).all()
    assert np.abs(offset.mean(0)).max() < 0.003
    np.testing.assert_allclose(rotation - CAMERA.rotation, 0, atol=1e-12)
    baseline = np.tile(BASELINE_M * CAMERA.rotation[:, 0], (500, 1))
    np.testing.assert_allclose(position[:, 1] - position[:, 0], baseline, atol=1e-12)


def test_rotations_are_as_large_as_asked_for_and_turn_the_rig():
    position, rotation = poses(rotation_rad=0.05)
    np.testing.assert_allclose(
        rotation @ np.swapaxes(rotation, 2, 3), np.tile(np.eye(3), (500, 2, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(position[:, 0] - CAMERA.position, 0, atol=1e-12)
    np.testing.assert_allclose(
        position[:, 1], CAMERA.position + BASELINE_M * rotation[:, 0, :, 0], atol=1e-12
    )
    turn = CAMERA.rotation.T @ rotation[:, 0]
    angle = np.arccos((np.trace(turn, axis1=1, axis2=2) - 1) / 2)
    assert angle.max() < 0.05 * np.sqrt(3) + 1e-6 and angle.max() > 0.05
    np.testing.assert_allclose(rotation[:, 0], rotation[:, 1])


def test_the_stereo_error_moves_the_right_camera_only():
    position, rotation = poses(stereo_position_m=0.003, stereo_rotation_rad=0.02)
    np.testing.assert_allclose(position[:, 0] - CAMERA.position, 0, atol=1e-12)
    np.testing.assert_allclose(rotation[:, 0] - CAMERA.rotation, 0, atol=1e-12)
    relative = (position[:, 1] - position[:, 0]) @ CAMERA.rotation - [BASELINE_M, 0, 0]
    assert 0.0028 < np.abs(relative).max() <= 0.003
    assert np.ptp(rotation[:, 1], axis=0).max() > 0.03


def test_poses_are_kept_until_the_next_episode_of_their_environment():
    config = {"position_m": 0.03, "rotation_rad": 0.05}
    assert jitter_of(3).poses is None, "the config says where the cameras are"
    jitter = jitter_of(3, **config)
    jitter.begin(torch.arange(3), torch.ones(3).long())
    before = jitter.poses
    first = CameraPoses(before.position.clone(), before.rotation.clone())
    jitter.begin(torch.tensor([2, 0]), torch.tensor([5, 2]))
    for now, old, second, fifth in zip(
        jitter.poses,
        first,
        poses(3, episode=2, **config),
        poses(3, episode=5, **config),
        strict=True,
    ):
        np.testing.assert_array_equal(now[0], second[0])
        np.testing.assert_array_equal(now[1], old[1])
        np.testing.assert_array_equal(now[2], fifth[2])
    assert not jitter.state_dict(), "the number of the episode says it all"


def test_poses_depend_on_seed_environment_and_episode():
    config = {"position_m": 0.03, "rotation_rad": 0.05}
    first = poses(4, **config)
    np.testing.assert_array_equal(first.position, poses(4, **config).position)
    np.testing.assert_array_equal(first.position[:2], poses(2, **config).position)
    others = [poses(4, episode=2, **config), poses(4, seed=1, **config)]
    rows = {row.tobytes() for each in (first, *others) for row in each.position[:, 0]}
    assert len(rows) == 12


def test_strengths_of_zero_give_the_images_of_no_config():
    """Also through the code that jitters: a strength too small to move a pixel."""
    plain, tiny = play(2, {}), play(2, {"camera_jitter": {"position_m": 1e-12}})
    assert_equal(plain.snapshot(), tiny.snapshot())
    assert_equal(plain.step(), tiny.step())


def test_the_jitter_is_seen_in_all_images_and_changes_with_the_episode():
    still = play(2, {}).snapshot()
    playing = play(2, {"camera_jitter": {"position_m": 0.02, "rotation_rad": 0.05}})
    moved = playing.snapshot()
    for env in range(2):
        assert (moved["depth"][env] != still["depth"][env]).float().mean() > 0.3
        for side in range(2):
            different = moved["stereo_rgb"][env, side] != still["stereo_rgb"][env, side]
            assert different.float().mean() > 0.3
    # the table far from object and hand is where it was within an episode, not in the next one
    corner = (slice(None), slice(-4, None), slice(0, 6))
    images = [playing.step()["depth"][corner] for _ in range(24)]
    changes = [bool((a != b).any()) for a, b in itertools.pairwise(images)]
    assert sum(changes) in (1, 2, 3, 4), "the starts of new episodes"


def test_looks_differ_between_environments_and_episodes_but_not_between_views():
    playing = play(3, {"look": IMAGE["look"]})
    sky = playing.env.engine._stereo_renderers()
    for name, left, right in zip(sky[0].look._fields, sky[0].look, sky[1].look, strict=True):
        np.testing.assert_array_equal(left, right, err_msg=name)
    first = [array.copy() for array in sky[0].look]
    assert len({row.tobytes() for row in sky[0].look.background}) == 3
    np.testing.assert_allclose(np.linalg.norm(sky[0].look.light_direction, axis=1), 1, rtol=1e-5)
    for colors in (sky[0].look.color, sky[0].look.accent, sky[0].look.background):
        assert colors.min() >= 0 and colors.max() <= 1
    for _ in range(12):
        playing.step()
    for name, before, now in zip(sky[0].look._fields, first, sky[0].look, strict=True):
        assert not np.array_equal(before, now), name


def test_geoms_of_one_color_keep_one_color():
    plain = play(1, {"look": {"light_rad": 1e-9}}).env.engine._stereo_renderers()[0].look
    look = play(1, {"look": IMAGE["look"]}).env.engine._stereo_renderers()[0].look
    old, new = (
        np.unique(colors[0], axis=0, return_inverse=True)[1].reshape(-1)
        for colors in (plain.color, look.color)
    )
    pairs = set(zip(old.tolist(), new.tolist(), strict=True))
    assert len(pairs) == len(set(old.tolist())) == len(set(new.tolist()))


def test_splits_and_threads_change_nothing():
    """Noise, colours, looks and cameras together, over the ends of episodes."""
    whole, threaded = play(4, IMAGE), play(4, IMAGE, threads=2)
    halves = [play(2, IMAGE, env_offset=offset) for offset in (0, 2)]
    for _ in range(15):
        together = whole.step()
        assert_equal(together, threaded.step())
        parts = [half.step() for half in halves]
        for name, value in together.items():
            assert torch.equal(value, torch.cat([part[name] for part in parts])), name


def test_a_restored_environment_shows_the_same_images():
    playing = play(3, IMAGE)
    for _ in range(7):
        before = playing.step()
    state = playing.env.state_dict()
    after = [playing.step() for _ in range(12)]
    for other in (playing, play(3, IMAGE)):
        other.env.load_state_dict(state, other.out)
        assert_equal(other.snapshot(), before)
        for wanted in after:
            assert_equal(other.step(), wanted)


def test_observing_twice_gives_the_same():
    playing = play(2, IMAGE)
    before = playing.snapshot()
    playing.env.write_observations(playing.out)
    assert_equal(playing.snapshot(), before)


@pytest.mark.parametrize(
    ("values", "needle"),
    [
        ({"camera_jitter": {"position_m": -0.1}}, "greater than or equal to 0"),
        ({"camera_jitter": {"rotation_rad": 3.0}}, "less than or equal to 0.5"),
        ({"camera_jitter": {"angle": 3.0}}, "unknown key `image.camera_jitter.angle`"),
        ({"look": {"cell_factor": 0.5}}, "greater than or equal to 1"),
        ({"fog": 1}, "unknown key `image.fog`"),
    ],
)
def test_a_wrong_config_is_refused(values, needle):
    with pytest.raises(ConfigError, match=needle):
        parse_config(GraspConfig, {"image": values})


def test_the_depth_image_of_a_teacher_stays_where_the_config_has_the_camera():
    jitter = IMAGE["camera_jitter"]
    still = play(3, {"camera_jitter": {**jitter, "moves_depth": False}}).out
    moved, without = play(3, {"camera_jitter": jitter}).out, play(3, {}).out
    assert torch.equal(still["depth"], without["depth"])
    assert not torch.equal(still["depth"], moved["depth"])
    assert torch.equal(still["stereo_rgb"], moved["stereo_rgb"])
