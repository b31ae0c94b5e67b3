"""The runtime reproduces the learner's actions and carries its own memory."""

import numpy as np
import pytest

from dexgrasp_deploy.control.policy_runtime import PolicyRuntime, predicted_object_position
from dexgrasp_learner.storage.bundle import ACTION, AUXILIARY, VECTORS_FILE, read_vectors


@pytest.fixture
def vectors(bundle_folder):
    return read_vectors(bundle_folder / VECTORS_FILE)


def observation(vectors, step):
    return {name: vectors[name][step] for name in ("proprio", "depth")}


def test_reproduces_the_recorded_steps_and_forgets_on_reset(bundle, vectors):
    runtime = PolicyRuntime(bundle)
    for _ in range(2):
        runtime.reset()
        for step in range(len(vectors[ACTION])):
            action, prediction = runtime.act(observation(vectors, step))
            np.testing.assert_allclose(action, vectors[ACTION][step], atol=1e-5)
            np.testing.assert_allclose(prediction, vectors[AUXILIARY][step], atol=1e-5)


def test_memory_matters(bundle, vectors):
    runtime = PolicyRuntime(bundle)
    first, _ = runtime.act(observation(vectors, 0))
    second, _ = runtime.act(observation(vectors, 0))
    assert not np.array_equal(first, second)


def test_wrong_observations_are_refused(bundle, vectors):
    runtime = PolicyRuntime(bundle)
    good = observation(vectors, 0)
    with pytest.raises(ValueError, match="'depth' is missing"):
        runtime.act({"proprio": good["proprio"]})
    with pytest.raises(ValueError, match=r"float32 \[24, 32\], the policy needs int16"):
        runtime.act(good | {"depth": good["depth"].astype(np.float32)})
    with pytest.raises(ValueError, match=r"\[24, 31\]"):
        runtime.act(good | {"depth": good["depth"][:, :31]})


def test_prediction_is_relative_to_the_spawn_centre(bundle):
    # spawn centre (-0.55, 0.10) on the table, whose top is at 0.25 m
    prediction = np.array([0.01, -0.02, 0.05, 0, 0, 1], np.float32)
    position = predicted_object_position(bundle.manifest, prediction)
    np.testing.assert_allclose(position, [-0.54, 0.08, 0.30], atol=1e-6)
    assert predicted_object_position(bundle.manifest, None) is None
