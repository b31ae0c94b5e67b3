"""Settings of the two algorithms."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
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
        minibatches: Optimizer steps per pass; each takes a share of the steps or, where a net has
            a memory, all steps of a share of environments.
        micro_batches: Pieces in which a minibatch is computed; more pieces need less memory and
            give the same result. None: the smallest number with at most 256 images of 64x48 per
            piece (on a GPU 4096 of 160x120), more of smaller ones, or 1 without images.
        gamma: Discount per step.
        gae_lambda: Lambda of the generalised advantage estimate.
        clip: The importance ratio is clipped to 1 +- `clip`; see also `clip_value_loss`.
        schedule: `adaptive` changes the actor's learning rate to keep the KL divergence near
            `desired_kl`; `fixed` keeps it constant.
        learning_rate: Learning rate of the actor at the start.
        min_learning_rate: Floor of the adaptive learning rate.
        max_learning_rate: Ceiling of the adaptive learning rate.
        desired_kl: KL divergence (nats) per update that the adaptive schedule aims at.
        critic_learning_rate: Fixed rate of the critic; None: it follows the actor's.
        value_coefficient: Weight of the squared value error.
        clip_value_loss: Whether the loss limits the change of a value per update to `clip`.
        normalize_values: Whether the critic learns returns that are normalised by their running
            mean and standard deviation.
        entropy_coefficient: Reward for a wide action distribution.
        bounds_coefficient: Weight of the squared excess of mean actions over `action_bound`.
        action_bound: See `bounds_coefficient`; environments clip actions to [-1, 1].
        auxiliary_coefficient: Weight of the actor's auxiliary loss, if it has that head.
        auxiliary_epochs: Further passes over each rollout for the auxiliary loss alone, in which
            the actions stay as they are, see `auxiliary_phase`.
        auxiliary_rollouts: These passes draw from so many of the latest rollouts, which they keep
            in memory, not in checkpoints.
        auxiliary_learning_rate: Learning rate of these passes, fixed.
        max_grad_norm: Gradients of each net are scaled down to this norm.
        noise_correlation: Correlation of the exploration noise between consecutive steps. With 0,
            each step draws anew, and the noise of a closing or rising hand averages out before
            an object is lifted by chance.
        precision: Of the products of matrices in the update: `bfloat16` (with float32 weights and
            sums) where the processor or GPU has it and no net has a memory, else float32.
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
    auxiliary_epochs: Annotated[int, Field(ge=0)] = 0
    auxiliary_rollouts: Count = 1
    auxiliary_learning_rate: Positive = 5e-4
    max_grad_norm: Positive = 1.0
    noise_correlation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _check(self) -> "PpoConfig":
        low, high = self.min_learning_rate, self.max_learning_rate
        if self.schedule == "adaptive" and not low <= self.learning_rate <= high:
            raise ValueError(
                f"learning_rate {self.learning_rate:g} is not from min_learning_rate {low:g} to "
                f"max_learning_rate {high:g}, between which schedule adaptive changes it; change "
                "one of them, or say schedule: fixed"
            )
        return self


@dataclass(frozen=True, config=STRICT)
class DistillationConfig:
    """Settings of distillation; the defaults are the laptop settings.

    Attributes:
        epochs: Passes over each rollout.
        minibatches: Optimizer steps per pass; each takes a share of the steps or, where a net has
            a memory, all steps of a share of environments.
        micro_batches: As `ppo.micro_batches`.
        learning_rate: Learning rate of Adam, fixed.
        noise_std: Standard deviation of the noise on the student's actions, in units of the
            action. It makes the student visit states near its own trajectories.
        teacher_steps: Environment steps (of all environments together) over which the probability
            that the teacher's action is applied falls from 1 to 0; 0: always the student's.
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
