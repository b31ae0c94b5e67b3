"""Films of a policy: what is in a frame, and that a player can read the file."""

from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from dexgrasp_learner.config import load_run_config
from dexgrasp_learner.evaluation.episodes import scripted_policy
from dexgrasp_learner.evaluation.film import colorize_depth, film, write_film, write_video
from dexgrasp_sim.config import replace
from dexgrasp_sim.environments import make_grasp_env
from dexgrasp_sim.vec_env import allocate

CONFIG = Path(__file__).parents[4] / "config" / "laptop_depth.yaml"
TASK = load_run_config(CONFIG, ["task.episode_s=0.8"]).task
CAMERA = TASK.camera
WIDTH, HEIGHT = 400, 300
BRIGHTEST, DARKEST = (253, 231, 37), (68, 1, 84)
"""Ends of matplotlib's viridis, RGB."""


def still_policy(env):
    return lambda observations, start: torch.zeros(env.num_envs, env.action_dim)


def make_film(make_policy=still_policy, config=TASK, columns=2, seed=0):
    return list(film(make_policy, config, (), seed, columns))


def halves(frame):
    """The scene and the depth image of each column."""
    columns = frame.shape[1] // WIDTH
    scene, depth = frame[:HEIGHT], frame[HEIGHT:]
    return np.split(scene, columns, axis=1), np.split(depth, columns, axis=1)


@pytest.fixture(scope="module")
def frames():
    return make_film(scripted_policy)


def test_there_is_one_frame_per_control_step(frames):
    assert len(frames) == TASK.episode_steps == 12
    for frame in frames:
        assert (frame.shape, frame.dtype) == ((2 * HEIGHT, 2 * WIDTH, 3), np.uint8)


def test_every_part_of_a_frame_shows_something(frames):
    scenes, depths = halves(frames[0])
    for image in (*scenes, *depths):
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20
    assert not np.array_equal(*scenes) and not np.array_equal(*depths), "two objects"


def test_the_robot_moves_in_the_scene_and_in_the_depth_images(frames):
    for first, last in zip(halves(frames[0]), halves(frames[-1]), strict=True):
        for before, after in zip(first, last, strict=True):
            assert (before != after).any(-1).mean() > 0.02


def test_the_film_starts_at_the_start_of_an_episode_of_the_seed():
    config = replace(TASK, stagger_starts=False)
    env = make_grasp_env(config, 2, 4, 1, ("depth",))
    out = allocate(env)
    env.reset(out)
    _, depths = halves(make_film(seed=4)[0])
    for image, shown in zip(out["depth"].numpy(), depths, strict=True):
        assert np.array_equal(colorize_depth(image, CAMERA), shown)
    env.close()


def test_a_film_can_be_left_before_its_end():
    frames = film(still_policy, TASK, ("proprio",), seed=0, columns=1)
    assert next(frames).shape == (2 * HEIGHT, WIDTH, 3)
    frames.close()


def test_near_is_bright_far_is_dark_and_invalid_is_black():
    near, far = round(1000 * CAMERA.near_m), round(1000 * CAMERA.far_m)
    image = np.array([[near, far], [0, far - 1], [near - 1, far + 1]], np.int16)
    shown = colorize_depth(image, CAMERA)
    assert (shown.shape, shown.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    corners = shown[50::100, 100::200]  # the middle of each pixel
    assert corners.shape == (3, 2, 3)
    assert np.abs(corners[0, 0].astype(int) - BRIGHTEST).max() <= 3
    assert np.abs(corners[0, 1].astype(int) - DARKEST).max() <= 3
    assert corners[1, 0].tolist() == [0, 0, 0]
    assert np.array_equal(corners[1, 1], corners[0, 1]), "1 mm is less than a shade"
    assert np.array_equal(corners[2], corners[0]), "beyond the range as at its end"


def test_depth_pixels_stay_sharp_when_enlarged():
    image = np.zeros((24, 32), np.int16)
    image[10, 20] = 500
    lit = colorize_depth(image, CAMERA).any(-1)
    rows, columns = np.nonzero(lit)
    assert (rows.min(), rows.max() + 1) == (pytest.approx(125, abs=1), pytest.approx(137, abs=2))
    assert (columns.min(), columns.max() + 1) == (250, pytest.approx(262, abs=1))
    assert lit.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)


@pytest.mark.parametrize("columns", [1, 3])
def test_a_video_reads_back_in_full_size_and_length(tmp_path, columns):
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (4, 12, 8 * columns, 3), np.uint8)
    frames = [block.repeat(50, 0).repeat(50, 1) for block in blocks]
    path = tmp_path / "film.mp4"
    write_video(path, iter(frames), rate_hz=15.0)
    reader = imageio.get_reader(path)
    meta, shown = reader.get_meta_data(), list(reader.iter_data())
    reader.close()
    assert meta["codec"] == "h264" and meta["fps"] == 15.0
    assert meta["size"] == (WIDTH * columns, 2 * HEIGHT)
    assert len(shown) == 4 + 9, "the last frame is held for 0.6 s"
    for frame, found in zip([*frames, *[frames[-1]] * 9], shown, strict=True):
        middle = np.abs(found.astype(int) - frame)[25::50, 25::50]
        assert middle.mean() < 12, "the colours are those written"


def test_a_picture_beside_the_film_shows_two_moments(frames, tmp_path):
    write_film(tmp_path / "one.mp4", iter(frames), TASK)
    assert (tmp_path / "one.mp4").stat().st_size > 1000
    picture = imageio.imread(tmp_path / "one.png")
    assert np.array_equal(picture, np.concatenate((frames[0], frames[5])))
