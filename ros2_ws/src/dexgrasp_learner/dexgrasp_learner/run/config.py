"""Settings of a run: its length, checkpoints, evaluations, and when its task gets harder."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic.dataclasses import dataclass

from dexgrasp_sim.config import STRICT
from dexgrasp_sim.yaml_file import absolute_path

Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=STRICT)
class TrainingConfig:
    """Length of a run, and how often it saves and evaluates.

    Attributes:
        horizon: Steps of a rollout.
        device: Where the networks compute: `cpu`, `cuda`, or `auto`, a GPU if there is one.
        image_storage: Where the images of a rollout are while a GPU learns: `device`, or `host`,
            from which they are copied in pieces; this needs less GPU memory and more time.
        iterations: Rollouts and updates.
        max_minutes: The run ends after this long even if iterations are left; None: no limit.
        checkpoint_every: Iterations between checkpoints.
        update_threads: CPU threads of the update; the simulators idle meanwhile.
        deterministic: Torch refuses operations whose results may differ between runs.
        evaluate_every: Iterations between evaluations, which choose the weights to export; None:
            never, the newest are exported. Success of exploring episodes is no reason to wait: it
            is 20 to 45 points below that of the mean action.
        evaluation_episodes: Episodes of an evaluation, for the newest weights and as many for the
            averaged ones.
        target_success: The run ends when a policy reaches this in its further episodes.
        confirmation_episodes: Further episodes of a policy that may have reached the target; fewer
            once it is out of reach.
        averaging_decay: Per iteration, of the weights' moving average.
        initial_policy: Run or checkpoint whose policy this run begins with, to go on in another
            task or after a distillation; its noise is that of `network.initial_std` all the same.
            A relative path counts from the config file. None: random weights.
        initial_critic: The same for the critic, which may be that of another run.
    """

    horizon: Count = 16
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    image_storage: Literal["device", "host"] = "device"
    iterations: Count = 300
    max_minutes: Positive | None = None
    checkpoint_every: Count = 50
    update_threads: Annotated[int, Field(gt=0, le=1024)] = 2
    deterministic: bool = False
    evaluate_every: Count | None = 15
    evaluation_episodes: Count = 64
    target_success: Annotated[float, Field(gt=0, le=1)] = 0.97
    confirmation_episodes: Count = 192
    averaging_decay: Annotated[float, Field(ge=0, lt=1)] = 0.85
    initial_policy: str | None = None
    initial_critic: str | None = None

    @field_validator("initial_policy", "initial_critic", mode="before")
    @classmethod
    def _find_run(cls, path: Any) -> Any:
        return str(absolute_path(path)) if isinstance(path, str) else path


@dataclass(frozen=True, config=STRICT)
class AdrConfig:
    """When the difficulty of the task changes; it starts from `task.difficulty`.

    Attributes:
        enabled: False: the difficulty stays at `task.difficulty`.
        increments: Steps between difficulty 0 and 1.
        advance_above: The difficulty rises by one increment if the smoothed success exceeds this.
        retreat_below: It falls by one increment if the smoothed success is below this.
        min_episodes: Least number of episodes at an increment before it may change.
        smoothing_episodes: The smoothed success is the mean of the episodes at the present
            increment up to this number; after that, each new episode has the weight
            1 / `smoothing_episodes`.
    """

    enabled: bool = False
    increments: Count = 50
    advance_above: Fraction = 0.6
    retreat_below: Fraction = 0.3
    min_episodes: Count = 1000
    smoothing_episodes: Count = 500

    @model_validator(mode="after")
    def _check(self) -> "AdrConfig":
        if self.enabled and self.retreat_below >= self.advance_above:
            raise ValueError(
                f"`retreat_below` {self.retreat_below} is not below `advance_above` "
                f"{self.advance_above}; the difficulty would oscillate: leave a gap between them"
            )
        return self
