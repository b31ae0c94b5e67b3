"""A policy bundle as the policy of many environments."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dexgrasp_learner.networks.policy import ActorOutput
from dexgrasp_learner.storage.bundle import ACTION, AUXILIARY, MEMORY_OUT, Bundle, run_step


class BundlePolicy(nn.Module):
    """Acts like the `Actor` that the bundle was exported from, one environment at a time.

    The graph is that of one robot and runs on the CPU: about 30 us for each small policy. For
    thousands of environments take the run instead.

    Attributes:
        groups: Observation groups that it reads.
        action_dim: Length of an action.
        memory_size: Width of its memory, 0 without one.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self._bundle = bundle
        manifest = bundle.manifest
        self.groups = tuple(spec.name for spec in manifest.groups)
        self.action_dim = len(manifest.action_names)
        self.memory_size = manifest.memory_shape[2]

    def initial_memory(self, num_envs: int) -> Tensor:
        """The memory before an episode: zeros, float32 [2, num_envs, H]; H = 0 without memory."""
        return torch.zeros(2, num_envs, self.memory_size)

    def forward(
        self, observations: Mapping[str, Tensor], start: Tensor, memory: Tensor
    ) -> ActorOutput:
        """One step of N environments.

        Args:
            observations: Group name to [1, N, ...].
            start: bool [1, N], True where an episode begins.
            memory: float32 [2, N, H].

        Raises:
            ValueError: More than one step.
        """
        if len(start) != 1:
            raise ValueError(f"{len(start)} steps at once; a bundle takes one after the other")
        arrays = {name: observations[name][0].cpu().numpy() for name in self.groups}
        kept = (memory * ~start.unsqueeze(-1)).cpu()  # [2, N, H]
        results = [
            run_step(
                self._bundle,
                {name: array[env] for name, array in arrays.items()},
                kept[:, env : env + 1].numpy(),
            )
            for env in range(start.shape[1])
        ]
        after = torch.cat([torch.from_numpy(result[MEMORY_OUT]) for result in results], 1)

        def joined(name: str) -> Tensor:
            values = torch.stack([torch.from_numpy(result[name]) for result in results])
            return values.unsqueeze(0).to(start.device)  # [1, N, K]

        auxiliary = joined(AUXILIARY) if AUXILIARY in results[0] else None
        return ActorOutput(joined(ACTION), after.to(start.device), auxiliary)
