"""Where failed episodes ended: on the way to the object, at the grasp, in the lift or in the hold.

What the episode rows do not hold, how near the hand came, is followed here while an evaluation
runs, so that checkpoints and rollouts of a training do not depend on it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dexgrasp_sim.tasks.grasp.env import GraspEnv
from dexgrasp_sim.tasks.grasp.observations import LIFTED_M, NEAR_M

NEAREST = "nearest_m"
"""Name of the column that `Approach` adds to episode rows."""
PHASES = ("reach", "grasp", "lift", "hold")
"""In the order of an episode. A failed one ended in

- `reach` if the hand never came near the object,
- `grasp` if it did and the object was never lifted,
- `lift` if it was lifted and never got to the goal region,
- `hold` if it got there and was not held to the end.
"""


class Approach:
    """The smallest distance between grasp centre and object in each running episode."""

    def __init__(self, env: GraspEnv) -> None:
        """Args:
        env: The environments, at the start of an episode.
        """
        self._env = env
        self.nearest_m = torch.full((env.num_envs,), torch.inf, device=env.device)  # [N]
        self.follow()

    def follow(self, running: Tensor | None = None) -> None:
        """Takes in the present state of the environments where `running` [N], None: of all."""
        engine = self._env.engine
        offset = engine.grasp_center_position - engine.object_position  # [N, 3]
        nearest = torch.fmin(self.nearest_m, torch.linalg.norm(offset, dim=1))  # [N]
        self.nearest_m = nearest if running is None else nearest.where(running, self.nearest_m)


def failures(rows: Tensor, fields: Sequence[str]) -> dict[str, int]:
    """In how many failed episodes each phase was the last.

    Args:
        rows: [K, E] episode rows with the column `NEAREST`.
        fields: Names of the columns.

    Returns:
        A count for each of `PHASES`; together all episodes without success.
    """
    columns = dict(zip(fields, rows.T, strict=True))
    failed = columns["success"] == 0
    got_there = columns["time_to_goal_s"] >= 0
    lifted = got_there | (columns["max_lift_m"] > LIFTED_M)
    near = lifted | (columns[NEAREST] < NEAR_M)
    last = (~near, near & ~lifted, lifted & ~got_there, got_there)  # each [K]
    return {name: int((failed & phase).sum()) for name, phase in zip(PHASES, last, strict=True)}
