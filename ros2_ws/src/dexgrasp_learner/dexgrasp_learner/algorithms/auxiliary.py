"""The loss of an actor's auxiliary head."""

from collections.abc import Mapping

import torch
from torch import Tensor

from dexgrasp_learner.algorithms.guards import valid_mean
from dexgrasp_learner.networks.policy import Actor, ActorOutput


def auxiliary_losses(
    actor: Actor, output: ActorOutput, observations: Mapping[str, Tensor], valid: Tensor | None
) -> dict[str, Tensor]:
    """What the predictions of a batch are worth; scalars.

    Args:
        actor: Has the head, or none.
        output: Of the actor for these steps.
        observations: Group name to [T, n, ...], with the actor's auxiliary group.
        valid: bool [T, n], which steps count; None: all.

    Returns:
        `auxiliary`, the squared error in deviations of the target, 0 without that head; with it
        also `estimate_error`, the distance from the target in its unit (m for positions).
    """
    prediction = output.auxiliary
    if actor.auxiliary_group is None or prediction is None:
        return {"auxiliary": output.mean.new_zeros(())}
    target = observations[actor.auxiliary_group]  # [T, n, K]
    distance = torch.linalg.vector_norm(prediction.detach() - target, dim=-1)  # [T, n]
    return {
        "auxiliary": valid_mean(actor.auxiliary_errors(prediction, target), valid),
        "estimate_error": valid_mean(distance, valid),
    }
