"""The action distribution: a diagonal Gaussian whose width does not depend on the state."""

import math

import torch
from torch import Tensor, nn

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class DiagonalGaussian(nn.Module):
    """Independent normal actions around a mean, with one learned deviation per action."""

    def __init__(
        self, size: int, initial_std: float = 0.6, min_std: float = 0.08, max_std: float = 1.2
    ) -> None:
        super().__init__()
        self.min_log_std = math.log(min_std)
        self.max_log_std = math.log(max_std)
        self.log_std = nn.Parameter(torch.full((size,), math.log(initial_std)))

    @property
    def std(self) -> Tensor:
        """Deviations, float32 [A]."""
        return self.log_std.exp()

    def sample(
        self,
        mean: Tensor,
        generator: torch.Generator | None = None,
        before: Tensor | None = None,
        correlation: float = 0.0,
    ) -> Tensor:
        """Draws actions around means [..., A].

        Args:
            mean: The means.
            generator: Draws the noise.
            before: Noise of the step before in deviations, as `mean`; None: there was none.
            correlation: Of the noise with `before`, 0 to 1. Whatever it is, an action alone has
                the density of `log_prob`.
        """
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        if before is not None:
            noise = correlation * before + math.sqrt(1 - correlation**2) * noise
        return mean + self.std * noise

    def log_prob(self, mean: Tensor, actions: Tensor) -> Tensor:
        """Log density of actions [..., A] around means [..., A], summed over A: [...]."""
        deviation = (actions - mean) / self.std
        return (-0.5 * deviation.square() - self.log_std - _LOG_SQRT_2PI).sum(-1)

    def entropy(self) -> Tensor:
        """Differential entropy of one draw of all actions, in nats; scalar."""
        return (self.log_std + 0.5 + _LOG_SQRT_2PI).sum()

    def kl_from(self, old_mean: Tensor, old_log_std: Tensor, mean: Tensor) -> Tensor:
        """KL(old || this), in nats: means [..., A], old_log_std [A]; result [...]."""
        spread = (2 * old_log_std).exp() + (old_mean - mean).square()
        return (self.log_std - old_log_std + 0.5 * spread / self.std.square() - 0.5).sum(-1)

    @torch.no_grad()
    def clamp_std(self) -> None:
        """Brings the parameter back into its allowed range; call after every optimizer step.

        If its use were clamped instead, the gradient would be zero outside the range.
        """
        self.log_std.clamp_(self.min_log_std, self.max_log_std)
