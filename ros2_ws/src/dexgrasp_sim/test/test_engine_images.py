"""What every physics backend shows of its environments."""

import torch

from dexgrasp_sim.vision.image_config import LookConfig
from engine_lab import (
    CONFIG,
    assert_same,
    on,
    poses,
    put,
    rest,
    snapshot,
    start,
    upright,
)


def image(engine, *shape, dtype=torch.int16):
    camera = CONFIG.camera
    size = (engine.num_envs, *shape, camera.height, camera.width)
    return torch.zeros(size, dtype=dtype, device=engine.device)


def depth(engine):
    out = image(engine)
    engine.render_depth(out)
    return out


def stereo(engine):
    out = image(engine, 2, 3, dtype=torch.uint8)
    engine.render_stereo_rgb(out)
    return out


def test_each_environment_shows_and_moves_its_own_object(lab):
    engine, alone = lab.engine(object_of_env=(2, 0, 1, 2)), lab.engine(object_of_env=(2,))
    put(engine, poses(1).repeat(4, 1))
    put(alone, poses(1))
    images = depth(engine)
    assert torch.equal(images[0], images[3])
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(images[one], images[other])
    rest(engine, 10)
    rest(alone, 10)
    for row in (0, 3):
        own = {name: value[row : row + 1] for name, value in snapshot(engine).items()}
        assert_same(engine, own, snapshot(alone), atol=1e-2)


def test_images_after_a_reset_show_the_new_state(lab):
    engine, fresh = start(lab.engine()), start(lab.engine())
    rest(engine, 3)
    before = depth(engine), stereo(engine)
    new = poses(1, height_m=0.2, seed=7)
    put(engine, new, ids=[1])
    after = depth(engine), stereo(engine)
    for old, now in zip(before, after, strict=True):
        assert torch.equal(old[[0, 2]], now[[0, 2]])
        assert not torch.equal(old[1], now[1])
    put(fresh, new, ids=[1])
    assert torch.equal(depth(fresh)[1], after[0][1])
    assert torch.equal(stereo(fresh)[1], after[1][1])


def test_depth_shows_the_object_and_is_in_the_range_of_the_camera(lab):
    engine = put(lab.engine(count=1), upright(0.05))
    near = depth(engine).long()
    put(engine, upright(5.0))
    far = depth(engine).long()
    for shown in (near, far):
        seen = shown[shown > 0]
        assert seen.min() >= 1e3 * CONFIG.camera.near_m and seen.max() <= 1e3 * CONFIG.camera.far_m
    assert ((near != far) & (near > 0)).sum() >= 4


def test_stereo_is_the_left_and_the_right_camera(lab):
    engine = start(lab.engine())
    pair = stereo(engine)
    for side, camera in enumerate(CONFIG.camera.stereo_pair(CONFIG.stereo_baseline_m)):
        one = image(engine, 3, dtype=torch.uint8)
        engine.render_rgb(camera, one)
        assert torch.equal(pair[:, side], one)
    assert not torch.equal(pair[:, 0], pair[:, 1])


def test_looks_change_where_they_are_asked_to_and_by_their_keys_alone(lab):
    look = LookConfig(color=0.5, pattern=0.5, cell_factor=2.0, light_rad=0.5, background=0.5)
    if lab.backend == "isaaclab":
        look = LookConfig(color=0.5)  # it refuses the others
    engine = start(lab.engine(look=look))
    plain, shape = stereo(engine), depth(engine)
    engine.randomize_looks(on(engine, [0, 2]), on(engine, [11, 12]))
    changed = stereo(engine)
    assert torch.equal(plain[1], changed[1])
    for env in (0, 2):
        assert not torch.equal(plain[env], changed[env])
    engine.randomize_looks(on(engine, [0, 2]), on(engine, [13, 12]))
    again = stereo(engine)
    assert torch.equal(again[1:], changed[1:]) and not torch.equal(again[0], changed[0])
    assert torch.equal(depth(engine), shape)


def test_timings_name_both_stages_and_closing_twice_is_allowed(lab):
    engine = lab.engine()
    assert engine.timings() == {"physics": 0.0, "render": 0.0}
    start(engine)
    assert engine.timings()["render"] == 0.0
    depth(engine)
    assert set(engine.timings()) == {"physics", "render"}
    engine.close()
    engine.close()
