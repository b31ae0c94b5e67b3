import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dexgrasp_sim.environments import env_specs, make_env
from dexgrasp_sim.specs import TensorSpec, Term, flat_spec, schema_hash
from dexgrasp_sim.tasks.grasp.episodes import EPISODE_FIELDS, RESULT_SPECS
from dexgrasp_sim.vec_env import EVERY_EPISODE, EnvSpecs

DEPTH = TensorSpec("depth", (24, 32), "int16", "mm", "camera z")
FLAT = flat_spec("proprio", (Term("angle", 2, "rad"), Term("tip", 3, "m", "base")))

names = st.text(min_size=1, max_size=6)
terms = st.builds(Term, name=names, size=st.integers(1, 5), unit=names, frame=names)
images = st.builds(
    TensorSpec,
    name=names,
    shape=st.lists(st.integers(0, 9), max_size=4).map(tuple),
    dtype=st.sampled_from(["float32", "float16", "uint8", "int16", "int64", "bool"]),
    unit=names,
    frame=names,
)
groups = st.builds(flat_spec, names, st.lists(terms, min_size=1, max_size=4))
specs = st.one_of(images, groups)


def test_a_flat_group_is_as_long_as_its_terms():
    assert FLAT.shape == (5,)
    assert (FLAT.dtype, FLAT.nbytes) == ("float32", 20)
    assert DEPTH.nbytes == 24 * 32 * 2
    assert TensorSpec("reward", ()).nbytes == 4


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int16", "int64", "bool"])
def test_torch_and_numpy_agree_on_the_type(dtype):
    spec = TensorSpec("x", (2, 3), dtype)
    tensor = spec.empty(4, 5)
    assert tensor.shape == (4, 5, 2, 3) and not tensor.any()
    assert tensor.numpy().dtype == spec.numpy_dtype == np.dtype(dtype)
    assert tensor.dtype == spec.torch_dtype
    assert tensor[0, 0].numel() * tensor.element_size() == spec.nbytes


def test_an_unknown_type_and_terms_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"depth: dtype 'float64' is not one of .*'float32'"):
        TensorSpec("depth", (1,), "float64")
    with pytest.raises(ValueError, match=r"do not add up to the shape \(6,\)"):
        replace(FLAT, shape=(6,))


@given(specs)
def test_plain_values_give_the_spec_back_also_through_json(spec):
    assert TensorSpec.from_dict(spec.to_dict()) == spec
    again = TensorSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec and hash(again) == hash(spec)
    assert schema_hash([again]) == schema_hash([spec])


@given(st.lists(specs, max_size=4), st.lists(specs, max_size=4))
def test_the_hash_is_equal_just_for_equal_schemas(one, other):
    assert (schema_hash(one) == schema_hash(other)) == (one == other)


@pytest.mark.parametrize(
    "changed",
    [
        [FLAT, DEPTH],
        [DEPTH],
        [DEPTH, FLAT, FLAT],
        [replace(DEPTH, name="depths"), FLAT],
        [replace(DEPTH, shape=(32, 24)), FLAT],
        [replace(DEPTH, dtype="uint8"), FLAT],
        [replace(DEPTH, unit="m"), FLAT],
        [replace(DEPTH, frame="base"), FLAT],
        [DEPTH, replace(FLAT, terms=FLAT.terms[::-1])],
        [DEPTH, replace(FLAT, terms=(Term("angle", 2, "deg"), FLAT.terms[1]))],
        [DEPTH, replace(FLAT, terms=(Term("angle", 3, "rad"), Term("tip", 2, "m", "base")))],
        [DEPTH, replace(FLAT, terms=())],
    ],
)
def test_every_property_changes_the_hash(changed):
    assert schema_hash(changed) != schema_hash([DEPTH, FLAT])


def test_the_hash_stays_what_it_was():
    """Bundles and runs on disk carry hashes: a change of the recipe would orphan them."""
    assert schema_hash([DEPTH, FLAT]) == "8c8d36addc13f25b"


def test_results_are_named_and_sized():
    shapes = {spec.name: (spec.shape, spec.dtype) for spec in RESULT_SPECS}
    assert shapes == {
        "reward": ((), "float32"),
        "terminated": ((), "bool"),
        "truncated": ((), "bool"),
        "episode": ((len(EPISODE_FIELDS),), "float32"),
    }


@pytest.mark.parametrize("kind", ["grasp", "synthetic"])
def test_specs_known_beforehand_are_those_of_the_environment(kind):
    config = {} if kind == "synthetic" else {"action": {"dimensions": ["palm_z", "palm_yaw"]}}
    available = ("state",) if kind == "synthetic" else ("proprio", "depth", "critic")
    beforehand = env_specs(kind, config, available)
    env = make_env(kind, config, 1, seed=0, threads=1, groups=available)
    assert beforehand.observation_specs == env.observation_specs
    assert [spec.name for spec in env.observation_specs] == list(available)
    assert (beforehand.action_dim, beforehand.control_dt_s) == (env.action_dim, env.control_dt_s)
    env.close()


def test_an_unknown_environment_is_named():
    with pytest.raises(ValueError, match=r"'swim' is not one of 'grasp', 'synthetic'"):
        env_specs("swim", {}, ())
    with pytest.raises(ValueError, match="'swim'"):
        make_env("swim", {}, 1, 0, 1, ())


def test_empty_tensors_have_no_leading_axis_by_default():
    assert torch.equal(FLAT.empty(), torch.zeros(5))


def test_the_columns_that_every_episode_has_come_first():
    assert EnvSpecs((), 1, 0.1, (*EVERY_EPISODE, "lift_m")).result_specs[-1].shape == (5,)
    with pytest.raises(ValueError, match="put an environment's own after these"):
        EnvSpecs((), 1, 0.1, ("lift_m", *EVERY_EPISODE))
