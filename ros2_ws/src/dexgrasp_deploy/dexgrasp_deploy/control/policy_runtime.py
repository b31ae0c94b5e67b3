"""Runs a bundle's policy step by step and keeps its memory."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexgrasp_learner.storage.bundle import (
    ACTION,
    AUXILIARY,
    MEMORY_OUT,
    Bundle,
    BundleManifest,
    run_step,
)
from dexgrasp_sim.specs import TensorSpec


class PolicyRuntime:
    """The policy of one robot."""

    def __init__(self, bundle: Bundle) -> None:
        self.manifest = bundle.manifest
        self._bundle = bundle
        self._memory = np.zeros(bundle.manifest.memory_shape, dtype=np.float32)

    def reset(self) -> None:
        """Clears the memory, as at the start of an episode."""
        self._memory = np.zeros_like(self._memory)

    def act(
        self, observations: Mapping[str, NDArray[Any]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """One control step.

        Args:
            observations: One array per group of the manifest, of the shape and dtype of its spec.

        Returns:
            The action [A] in [-1, 1], and the auxiliary prediction [K] in the units of the
            manifest's `auxiliary` group, None if the policy makes none.

        Raises:
            ValueError: A group is missing or has another shape or dtype.
        """
        for spec in self.manifest.groups:
            _check(spec, observations.get(spec.name))
        outputs = run_step(self._bundle, observations, self._memory)
        self._memory = outputs[MEMORY_OUT]
        return outputs[ACTION], outputs.get(AUXILIARY)


def predicted_object_position(
    manifest: BundleManifest, prediction: NDArray[np.float32] | None
) -> NDArray[np.float64] | None:
    """The object's position as predicted by the policy.

    Args:
        manifest: The policy's manifest.
        prediction: [K], from `PolicyRuntime.act`.

    Returns:
        [3] m in the base frame; None if the policy does not predict it.
    """
    if manifest.auxiliary is None or prediction is None:
        return None
    first = 0
    for term in manifest.auxiliary.terms:
        if term.name == "object_position":
            task = manifest.task
            origin = np.array([*task.spawn.center_m, task.table.top_m])
            return origin + prediction[first : first + term.size].astype(np.float64)
        first += term.size
    return None


def _check(spec: TensorSpec, value: NDArray[Any] | None) -> None:
    if value is None:
        raise ValueError(f"observation group {spec.name!r} is missing")
    if value.shape != spec.shape or value.dtype != spec.numpy_dtype:
        raise ValueError(
            f"observation group {spec.name!r} is {value.dtype} {list(value.shape)}, the policy "
            f"needs {spec.dtype} {list(spec.shape)}"
        )
