"""Settings of the two algorithms."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT

Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=STRICT)
class PpoConfig:
    """Settings of the update; the defaults are the laptop settings.

    Attributes:
        epochs: Passes over each rollout.
        minibatches: Optimizer steps per pass; each takes all steps of a share of environments.
        micro_batches: Pieces in which a minibatch is computed: less memory, the same result. None:
            as few as leave each 256 images at most (on a GPU 4096), one where there are none.
        gamma: Discount per step.
        gae_lambda: Of the advantage estimate.
        clip: Range of the importance ratio around 1, and of the value step where that is clipped.
        schedule: `adaptive` moves the actor's learning rate towards `desired_kl`, `fixed` not.
        learning_rate: Of the actor, at the start.
        min_learning_rate: Floor of the adaptive learning rate.
        max_learning_rate: Ceiling of the adaptive learning rate.
        desired_kl: KL divergence (nats) per update that the adaptive schedule aims at.
        critic_learning_rate: Fixed rate of the critic; None: it follows the actor's.
        value_coefficient: Weight of the squared value error.
        clip_value_loss: Whether a value may move by at most `clip` per update.
        normalize_values: Whether the critic learns returns in running units of deviation.
        entropy_coefficient: Reward for a wide action distribution.
        bounds_coefficient: Weight of the squared excess of mean actions over `action_bound`.
        action_bound: See `bounds_coefficient`; environments clip actions to [-1, 1].
        auxiliary_coefficient: Weight of the actor's auxiliary loss, if it has that head.
        max_grad_norm: Gradients of each net are scaled down to this norm.
    """

    epochs: Count = 5
    minibatches: Count = 4
    micro_batches: Count | None = None
    gamma: Fraction = 0.98
    gae_lambda: Fraction = 0.95
    clip: Positive = 0.2
    schedule: Literal["adaptive", "fixed"] = "adaptive"
    learning_rate: Positive = 1e-3
    min_learning_rate: Positive = 5e-5
    max_learning_rate: Positive = 3e-3
    desired_kl: Positive = 0.025
    critic_learning_rate: Positive | None = None
    value_coefficient: Positive = 2.0
    clip_value_loss: bool = False
    normalize_values: bool = False
    entropy_coefficient: NonNegative = 0.0
    bounds_coefficient: NonNegative = 0.0
    action_bound: Positive = 1.1
    auxiliary_coefficient: NonNegative = 1.0
    max_grad_norm: Positive = 1.0


@dataclass(frozen=True, config=STRICT)
class DistillationConfig:
    """Settings of distillation; the defaults are the laptop settings.

    Attributes:
        epochs: Passes over each rollout.
        minibatches: Optimizer steps per pass; each takes all steps of a share of environments.
        micro_batches: Pieces in which a minibatch is computed: less memory, the same result. None:
            as few as leave each 256 images at most (on a GPU 4096), one where there are none.
        learning_rate: Of Adam, fixed.
        noise_std: Deviation of the noise on the student's actions, in units of the action; it
            shows the student the surroundings of its own path.
        teacher_steps: Environment steps (of all environments together) over which the share of
            actions that the teacher drives falls from 1 to 0; 0: the student always drives.
        bptt_steps: Gradients reach back through the memory at most this many steps; None: the
            whole rollout.
        auxiliary_coefficient: Weight of the student's auxiliary loss, if it has that head.
        max_grad_norm: Gradients are scaled down to this norm.
    """

    epochs: Count = 2
    minibatches: Count = 8
    micro_batches: Count | None = None
    learning_rate: Positive = 1e-3
    noise_std: NonNegative = 0.1
    teacher_steps: Annotated[int, Field(ge=0)] = 0
    bptt_steps: Count | None = None
    auxiliary_coefficient: NonNegative = 1.0
    max_grad_norm: Positive = 1.0
