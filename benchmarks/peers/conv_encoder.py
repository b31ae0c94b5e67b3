"""The laptop's former update, to measure the present one against: a convolutional encoder on depth
in [-0.5, 0.5], minibatches of whole environments in pieces of 256 images, Adam tensor by tensor.
"""

import torch
from torch import Tensor, nn

from dexgrasp_learner.algorithms.config import PpoConfig
from dexgrasp_learner.algorithms.ppo import Ppo
from dexgrasp_learner.networks.policy import Actor, Critic
from dexgrasp_learner.rollout.minibatches import Batch
from dexgrasp_learner.rollout.rollout import Rollout

_CHANNELS, _CELLS = 32, 12
_NEAR_MM, _FAR_MM = 200, 950


class ConvEncoder(nn.Module):
    """Patches of 4x4, then two convolutions: 32x24 pixels to 384 features."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 4, stride=4),
            nn.ELU(),
            nn.Conv2d(32, 48, 3, padding=1),
            nn.ELU(),
            nn.Conv2d(48, _CHANNELS, 3, stride=2, padding=1),
            nn.ELU(),
            nn.Flatten(),
        )

    def forward(self, depth_mm: Tensor) -> Tensor:
        """int16 [B, 24, 32] in mm to float32 [B, 384]."""
        depth = depth_mm.to(torch.float32)
        valid = (depth >= _NEAR_MM) & (depth <= _FAR_MM)
        scaled = ((depth - _NEAR_MM) / (_FAR_MM - _NEAR_MM) - 0.5).clamp(-0.5, 0.5)
        return self.layers(3 * torch.where(valid, scaled, 1.0).unsqueeze(1))


class FormerPpo(Ppo):
    """`Ppo` as it was."""

    def samples(self, rollout: Rollout) -> Batch:
        """Whole environments."""
        return Batch.whole(rollout)


def former_ppo(actor: Actor, critic: Critic, config: PpoConfig) -> FormerPpo:
    """The algorithm with the former encoder and optimizers; the actor gets the encoder."""
    trunk = actor.trunk
    present, fuse = trunk.encoders["depth"], trunk.fuse[0]
    assert isinstance(fuse, nn.Linear)
    vectors = fuse.in_features - int(present.features)  # pyright: ignore[reportArgumentType]
    trunk.encoders["depth"] = ConvEncoder()
    trunk.fuse[0] = nn.Linear(vectors + _CHANNELS * _CELLS, fuse.out_features)
    ppo = FormerPpo(actor, critic, config)
    ppo.actor_optimizer = torch.optim.Adam(actor.parameters(), config.learning_rate)
    ppo.critic_optimizer = torch.optim.Adam(critic.parameters(), config.learning_rate)
    return ppo
