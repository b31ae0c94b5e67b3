import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexgrasp_sim.robot.robot import load_robot
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.tasks.grasp.episodes import EPISODE_FIELDS
from dexgrasp_sim.tasks.grasp.observations import view_specs
from dexgrasp_sim.transport.layout import (
    ALIGNMENT,
    RunLayout,
    place,
    rollout_schema_hash,
    split_envs,
)
from dexgrasp_sim.transport.protocol import ProtocolError
from dexgrasp_sim.vec_env import EVERY_EPISODE, EnvSpecs

DTYPES = st.sampled_from(["float32", "float16", "uint8", "int16", "int64", "bool"])
SHAPES = st.lists(st.integers(1, 7), max_size=3).map(tuple)
NAMES = st.lists(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=5, unique=True)


@st.composite
def layouts(draw):
    specs = tuple(TensorSpec(name, draw(SHAPES), draw(DTYPES)) for name in draw(NAMES))
    workers = draw(st.integers(1, 4))
    slices = split_envs(draw(st.integers(workers, 20)), workers)
    return RunLayout(
        EnvSpecs(specs, draw(st.integers(1, 9)), 0.1, EPISODE_FIELDS, view_specs(load_robot())),
        draw(st.integers(1, 8)),
        slices,
    )


@given(layouts())
def test_tensors_are_aligned_and_do_not_overlap(layout):
    for block in layout.blocks:
        assert block.offset % ALIGNMENT == 0
    for block, successor in pairwise(layout.blocks):
        assert block.offset + block.nbytes <= successor.offset
    assert layout.blocks[-1].offset + layout.blocks[-1].nbytes <= layout.nbytes


@given(layouts())
def test_a_layout_survives_json(layout):
    assert RunLayout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout


@given(layouts())
def test_leading_axes_are_those_of_the_contract(layout):
    shapes = {block.name: block.shape for block in layout.rollout_blocks}
    slots, envs = layout.horizon + 1, layout.num_envs
    for spec in layout.observation_specs:
        assert shapes[spec.name] == (slots, envs, *spec.shape)
    assert shapes["terminated"] == shapes["reward"] == (slots, envs)
    assert shapes["episode"] == (slots, envs, len(EPISODE_FIELDS))
    assert shapes["actions"] == (layout.horizon, envs, layout.specs.action_dim)
    assert shapes["sequence"] == (slots, layout.num_workers)


@given(st.integers(1, 300), st.integers(1, 300))
def test_slices_cover_all_environments_equally(num_envs, num_workers):
    if num_workers > num_envs:
        with pytest.raises(ValueError, match="cannot be split"):
            split_envs(num_envs, num_workers)
        return
    slices = split_envs(num_envs, num_workers)
    covered = [env for start, stop in slices for env in range(start, stop)]
    assert covered == list(range(num_envs))
    sizes = [stop - start for start, stop in slices]
    assert len(sizes) == num_workers
    assert max(sizes) - min(sizes) <= 1


def test_a_known_split():
    assert split_envs(7, 3) == ((0, 3), (3, 5), (5, 7))


def test_a_group_cannot_take_a_result_s_name_nor_be_empty():
    layout = RunLayout(EnvSpecs((TensorSpec("reward", (1,)),), 2, 0.1), 3, ((0, 4),))
    with pytest.raises(ValueError, match="'reward'"):
        _ = layout.blocks
    with pytest.raises(ValueError, match="no elements"):
        place([("nothing", "uint8", (3, 0))])


def test_the_schema_hash_sees_names_shapes_types_and_actions():
    spec = TensorSpec("depth", (24, 32), "int16")
    others = [
        ((TensorSpec("image", (24, 32), "int16"),), 11, EVERY_EPISODE),
        ((TensorSpec("depth", (32, 24), "int16"),), 11, EVERY_EPISODE),
        ((TensorSpec("depth", (24, 32), "float16"),), 11, EVERY_EPISODE),
        ((spec,), 10, EVERY_EPISODE),
        ((spec, TensorSpec("proprio", (5,))), 11, EVERY_EPISODE),
        ((spec,), 11, (*EVERY_EPISODE, "lift_m")),
        ((spec,), 11, (*EVERY_EPISODE, "drop_m")),
    ]
    hashes = {rollout_schema_hash(*other) for other in others}
    assert len(hashes) == len(others)
    assert rollout_schema_hash((spec,), 11, EVERY_EPISODE) not in hashes


def test_another_placement_of_the_tensors_is_refused():
    layout = RunLayout(EnvSpecs((TensorSpec("state", (3,)),), 2, 0.1), 3, ((0, 4),))
    values = layout.to_dict()
    values["blocks"][1][3] += ALIGNMENT
    with pytest.raises(ProtocolError, match=layout.schema_hash):
        RunLayout.from_dict(values)
