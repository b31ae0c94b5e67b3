"""Running mean and variance of flat observations."""

import torch
from torch import Tensor, nn

from dexgrasp_learner.ranks.peers import Peers


class RunningNormalizer(nn.Module):
    """Scales vectors by the mean and variance of everything seen so far.

    The statistics change only in `update`, never in `forward`. An observation must have the same
    normalised value during a rollout and the update on it, or the importance ratios would be
    wrong.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, size: int, clip: float = float("inf"), min_std: float = 1e-2) -> None:
        """Starts as the identity (mean 0, variance 1).

        Args:
            size: Length of the vectors.
            clip: Normalised values are clipped to [-clip, clip].
            min_std: Floor of the scale, in the unit of the input, so that an element that never
                changes does not amplify noise.
        """
        super().__init__()
        self.clip = clip
        self.min_std = min_std
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @property
    def is_empty(self) -> bool:
        """Whether nothing was seen yet."""
        return self.count.item() == 0

    @property
    def std(self) -> Tensor:
        """The scale, float32 [size]: square root of variance + min_std^2."""
        return torch.sqrt(self.variance + self.min_std**2)

    @torch.no_grad()
    def update(self, values: Tensor, peers: Peers | None = None) -> None:
        """Merges the statistics of a batch [..., size] into the running ones.

        Chan, Golub, LeVeque: "Updating formulae and a pairwise algorithm for computing sample
        variances" (1979).

        Args:
            values: The batch, perhaps empty.
            peers: Ranks that update the same statistics at the same time with their own batches;
                all batches are merged as one.
        """
        values = values.reshape(-1, values.shape[-1]).float()  # [K, size]
        batch_count, batch_mean, batch_variance = (peers or Peers()).moments(values)
        if batch_count == 0:
            return
        total = self.count + batch_count
        weight = (batch_count / total).float()
        shift = batch_mean - self.mean
        spread = (batch_variance - self.variance) * weight + shift.square() * weight * (1 - weight)
        self.variance.add_(spread)
        self.mean.add_(shift * weight)
        self.count.copy_(total)

    def forward(self, values: Tensor) -> Tensor:
        """Normalises and clips vectors [..., size]; float32."""
        return ((values - self.mean) / self.std).clamp(-self.clip, self.clip)

    def denormalize(self, values: Tensor) -> Tensor:
        """The inverse of `forward` where nothing was clipped."""
        return values * self.std + self.mean
