"""rsl_rl's PPO with our nets: its models, storage and update around the same layers."""

from typing import Any

import torch
from rsl_rl.algorithms import PPO
from rsl_rl.models import MLPModel, RNNModel
from rsl_rl.storage import RolloutStorage
from rsl_rl.utils import unpad_trajectories
from tensordict import TensorDict
from torch import Tensor

from benchmarks import learner_workload
from benchmarks.learner_workload import SideResult, Sizes
from dexgrasp_learner.algorithms.config import PpoConfig
from dexgrasp_learner.networks.policy import Actor, Critic

_GROUPS = {
    "actor": [*learner_workload.ACTOR_GROUPS],
    "critic": [*learner_workload.CRITIC_GROUPS],
}


class TrunkModel(RNNModel):
    """Our trunk as an rsl_rl model, because rsl_rl has none with images and memory."""

    def __init__(self, net: Actor | Critic, observations: TensorDict, role: str) -> None:
        """Takes over the layers of a net.

        Args:
            net: Must not be used any more afterwards.
            observations: [N], one step.
            role: `actor` or `critic`.
        """
        trunk = net.trunk
        self._input_size = int(trunk.memory.get_submodule("lstm").input_size)  # type: ignore[arg-type]
        self._features = trunk.features
        gaussian = {"class_name": "GaussianDistribution", "init_std": 0.5, "std_type": "log"}
        is_actor = isinstance(net, Actor)
        super().__init__(
            observations,
            _GROUPS,
            role,
            net.action_dim if is_actor else 1,
            _hidden(net),
            distribution_cfg=gaussian if is_actor else None,
            rnn_hidden_dim=net.memory_size,
        )
        self.rnn.rnn = trunk.memory.get_submodule("lstm")  # type: ignore[assignment]
        self.mlp.load_state_dict(net.head.state_dict())
        self.normalizer, self.encoders = trunk.normalizer, trunk.encoders
        self.fuse = trunk.fuse if trunk.image_groups else None

    def get_latent(
        self, obs: TensorDict, masks: Tensor | None = None, hidden_state: Any = None
    ) -> Tensor:
        """Computes the same as `Trunk.forward`, over padded episode pieces if masks are given."""
        vector_groups = [name for name in self.obs_groups if name not in self.encoders]
        vectors = self.normalizer(torch.cat([obs[name] for name in vector_groups], -1))
        parts, memory_input = [vectors], vectors
        if self.fuse is not None:
            steps = obs.batch_dims
            images = [
                encoder(obs[name].flatten(0, steps - 1)).unflatten(0, obs.batch_size)
                for name, encoder in self.encoders.items()
            ]
            memory_input = self.fuse(torch.cat((*images, vectors), -1))
            parts.append(memory_input)
        if masks is not None:
            parts = [unpad_trajectories(part, masks) for part in parts]
        remembered = self.rnn(memory_input, masks, hidden_state).squeeze(0)
        return torch.cat((*parts, remembered), -1)

    def _get_obs_dim(
        self, obs: TensorDict, obs_groups: dict[str, list[str]], obs_set: str
    ) -> tuple[list[str], int]:
        return obs_groups[obs_set], self._input_size

    def _get_latent_dim(self) -> int:
        return self._features


def _hidden(net: Actor | Critic) -> list[int]:
    linear = [layer for layer in net.head if isinstance(layer, torch.nn.Linear)]
    return [layer.out_features for layer in linear[:-1]]


def run_theirs(sizes: Sizes) -> SideResult:
    """rsl_rl's update on the rollout of `benchmarks.learner_side.run_ours`."""
    base_mib = learner_workload.start_measuring_memory(sizes.device)
    first = _observed(sizes, learner_workload.slot_tensors(sizes, 0))
    actor, critic = learner_workload.build_nets(sizes)
    models = TrunkModel(actor, first, "actor"), TrunkModel(critic, first, "critic")
    ppo = make_ppo(*models, first, sizes.horizon, learner_workload.PPO, sizes.device)
    last = _collect(ppo, sizes)
    learner_workload.drift(ppo.actor, ppo.critic)

    def update() -> dict[str, float]:
        with torch.inference_mode():
            ppo.compute_returns(last)  # as ours, part of the update
        return ppo.update()

    metrics, update_cpu_s, update_s = learner_workload.timed_updates(update, sizes)
    return SideResult(
        update_cpu_s,
        update_s,
        learner_workload.peak_memory_mib(sizes.device) - base_mib,
        metrics["surrogate"],
        metrics["value"],
        learner_workload.count_parameters(ppo.actor, ppo.critic),
    )


def make_ppo(
    actor: MLPModel,
    critic: MLPModel,
    first: TensorDict,
    horizon: int,
    config: PpoConfig,
    device: str = "cpu",
) -> PPO:
    """rsl_rl's PPO with the settings that it shares with ours.

    Args:
        actor: Its last layer gives the number of actions.
        critic: Has one output.
        first: Observations [N] of one step.
        horizon: Steps of a rollout.
        config: The settings of our PPO.
        device: Where the models are.
    """
    actions = [layer for layer in actor.mlp if isinstance(layer, torch.nn.Linear)][-1].out_features
    return PPO(
        actor,
        critic,
        RolloutStorage("rl", first.batch_size[0], horizon, first, [actions], device),
        num_learning_epochs=config.epochs,
        num_mini_batches=config.minibatches,
        clip_param=config.clip,
        gamma=config.gamma,
        lam=config.gae_lambda,
        value_loss_coef=config.value_coefficient,
        entropy_coef=config.entropy_coefficient,
        learning_rate=config.learning_rate,
        max_grad_norm=config.max_grad_norm,
        use_clipped_value_loss=config.clip_value_loss,
        schedule=config.schedule,
        desired_kl=config.desired_kl,
        device=device,
    )


def _observed(sizes: Sizes, tensors: dict[str, Tensor]) -> TensorDict:
    observed = {name: tensors[name] for name in sizes.specs}
    return TensorDict(observed, batch_size=[sizes.envs], device=sizes.device)


def _collect(ppo: PPO, sizes: Sizes) -> TensorDict:
    """Fills the storage with the actions that our side draws; returns the last observations."""
    noise = torch.Generator(sizes.device).manual_seed(0)
    observed = _observed(sizes, learner_workload.slot_tensors(sizes, 0))
    with torch.inference_mode():
        for slot in range(sizes.horizon):
            ppo.act(observed)
            mean, std = ppo.actor.output_mean, ppo.actor.output_std
            actions = mean + std * torch.randn(mean.shape, generator=noise, device=sizes.device)
            ppo.transition.actions = actions
            ppo.transition.actions_log_prob = ppo.actor.get_output_log_prob(actions)
            result = learner_workload.slot_tensors(sizes, slot + 1)
            observed = _observed(sizes, result)
            terminated, truncated = result["terminated"], result["truncated"]
            ppo.process_env_step(
                observed,
                result["reward"],
                (terminated | truncated).float(),
                {"time_outs": truncated.float()},
            )
    return observed
