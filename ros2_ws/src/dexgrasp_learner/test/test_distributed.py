"""Ranks that average their gradients learn what one learner with all their environments learns.

torchrun starts this file as the ranks, which write what they find where the tests look for it.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dexgrasp_learner.algorithms.config import PpoConfig
from dexgrasp_learner.algorithms.ppo import Ppo
from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.evaluation.episode_statistics import EpisodeStatistics
from dexgrasp_learner.networks.config import NetworkConfig
from dexgrasp_learner.networks.policy import build_actor, build_critic
from dexgrasp_learner.pipeline.pipeline import Collected
from dexgrasp_learner.ranks.peers import VARIABLES, Peers, PeersDiffer, connect_peers
from dexgrasp_learner.rollout.rollout import Rollout
from dexgrasp_learner.run.adr import AdrController
from dexgrasp_learner.run.agreement import gathered
from dexgrasp_learner.run.config import AdrConfig
from dexgrasp_learner.run.report import Tally
from dexgrasp_sim.config import ConfigError
from dexgrasp_sim.specs import TensorSpec
from dexgrasp_sim.tasks.grasp.episodes import EPISODE_FIELDS

pytestmark = pytest.mark.slow

RANKS = 2
TIMEOUT_S = 100.0
HORIZON, ENVS, ACTIONS = 6, 8, 3
SPECS = {"proprio": TensorSpec("proprio", (5,)), "critic": TensorSpec("critic", (7,))}
CONFIG = PpoConfig(
    epochs=2, minibatches=2, micro_batches=2, normalize_values=True, desired_kl=1e-4
)
UPDATES = 2
KEPT = ("mean", "log_prob", "values", "start")
LARGE = 9_000_000
"""Elements: more than a bucket of gradients holds."""


def make_ppo(peers=None, kind=Ppo):
    network = NetworkConfig(
        actor_groups=("proprio",),
        critic_groups=("critic",),
        memory="lstm",
        memory_size=9,
        critic_memory="lstm",
        critic_memory_size=9,
        hidden=(16,),
        critic_hidden=(16,),
    )
    nets = (
        build_actor(network, SPECS, ACTIONS, view=RunConfig().table_view),
        build_critic(network, SPECS, view=RunConfig().table_view),
    )
    return kind(*nets, CONFIG, seed=3, peers=peers)


def shuffle_of(rank):
    return torch.Generator().manual_seed(100 + rank)


def own_part(saved, rank, size):
    """The rollout of one rank: its share of the environments of a saved one."""
    share = ENVS // size
    envs = slice(rank * share, (rank + 1) * share)
    tensors = {name: tensor[:, envs].clone() for name, tensor in saved["tensors"].items()}
    rollout = Rollout.on(tensors, tuple(SPECS), {"actor": 9, "critic": 9})
    for name in KEPT:
        getattr(rollout.own, name).copy_(saved[name][:, envs])
    for name, memory in saved["start_memory"].items():
        rollout.start_memory[name].copy_(memory[:, envs])
    rollout.log_std = saved["log_std"]
    valid = saved["valid"]
    rollout.valid = None if valid is None else valid[:, envs].clone()
    return rollout


def learn(peers, saved):
    ppo = make_ppo(peers)
    ppo.load_state_dict(saved["ppo"])
    ppo.shuffle = shuffle_of(peers.rank)
    rollout = own_part(saved, peers.rank, peers.size)
    figures = [ppo.learn(rollout) for _ in range(UPDATES)]
    state = ppo.state_dict()
    peers.check_equal([state["actor"], state["critic"]], "after the updates")
    return {"ppo": state, "figures": figures}


def collected(rank):
    """Episodes of a rank; the second one has more, and one that was not whole."""
    rows = torch.rand(20 + 11 * rank, len(EPISODE_FIELDS))
    rows[:, EPISODE_FIELDS.index("success")] = torch.arange(len(rows)) % 3 > 0
    rows[:, EPISODE_FIELDS.index("whole")] = torch.arange(len(rows)) < 30
    return Collected(4, rows, torch.ones(len(rows), dtype=torch.bool), rank, 1 + rank)


def tally_of(rollout):
    adr = AdrController(AdrConfig(enabled=True, min_episodes=45), difficulty=0.5)
    tally = Tally(adr, episodes=EpisodeStatistics(EPISODE_FIELDS))
    tally.add_episodes(rollout.episode, rollout.ended)
    return tally.state_dict()


def exchange(peers):
    torch.manual_seed(2)
    own = [collected(rank) for rank in range(RANKS)]
    together = gathered(peers, own[peers.rank])
    rank = torch.tensor(float(peers.rank))
    averaged = [rank.clone(), rank.expand(2, 5).clone(), rank.expand(LARGE).clone(), rank + 1]
    peers.average_(averaged)
    weights = [torch.full((3,), float(peers.rank))]
    try:
        peers.check_equal([{"weight": weights[0]}], "iteration 7")
        error = ""
    except PeersDiffer as difference:
        error = str(difference)
    peers.broadcast_(weights, source=1)
    peers.check_equal([{"weight": weights[0]}], "iteration 8")
    samples = torch.randn(7, 3, generator=torch.Generator().manual_seed(1)) * 2 + 30
    count, mean, variance = peers.moments(samples[:2] if peers.rank else samples[2:])
    nothing = peers.moments(torch.empty(0, 3))
    lonely = peers.moments(samples if peers.rank else samples[:0])
    return {
        "rollout": [together.reward, together.invalid_steps],
        "tally": tally_of(together),
        "averaged": [tensor.mean() for tensor in averaged],
        "error": error,
        "weights": weights[0],
        "rows": peers.gather(torch.full((2 * peers.rank, 3), peers.rank)),
        "flags": peers.any(False, peers.rank == 1, True),
        "sum": peers.sum(0.5, peers.rank),
        "shared": peers.share(b"from 1" * peers.rank, source=1).decode(),
        "samples": samples,
        "moments": [torch.tensor(float(count)), mean, variance],
        "nothing": [torch.tensor(float(nothing[0])), *nothing[1:]],
        "lonely": [torch.tensor(float(lonely[0])), *lonely[1:]],
    }


class DealsInPairs(Ppo):
    """Minibatches as the ranks deal them: each is the union of what all of them take."""

    def deal(self, samples):
        share, config = ENVS // RANKS, self.config
        dealt = [
            (torch.randperm(share, generator=s) + k * share).tensor_split(config.minibatches)
            for k, s in enumerate(self.shuffles)
        ]
        return [
            list(torch.cat(parts).tensor_split(config.micro_batches))
            for parts in zip(*dealt, strict=True)
        ]


def pool_tensors():
    generator = torch.Generator().manual_seed(5)
    slots = (HORIZON + 1, ENVS)
    return {
        **{
            name: torch.randn(*slots, *spec.shape, generator=generator) * 3 + 1
            for name, spec in SPECS.items()
        },
        "reward": torch.randn(*slots, generator=generator),
        "terminated": torch.rand(*slots, generator=generator) < 0.15,
        "truncated": torch.rand(*slots, generator=generator) < 0.15,
        "actions": torch.zeros(HORIZON, ENVS, ACTIONS),
    }


def act():
    """A learner of all environments that has acted and not yet learned."""
    torch.manual_seed(0)
    ppo = make_ppo(kind=DealsInPairs)
    rollout = Rollout.on(pool_tensors(), ppo.groups, ppo.memory_sizes)
    ppo.shuffles = [shuffle_of(rank) for rank in range(RANKS)]
    for slot in range(HORIZON):
        ppo.act(rollout, slot)
    ppo.finish(rollout)
    return ppo, rollout


def save(path, ppo, rollout):
    torch.save(
        {
            "tensors": rollout.mirror.pool,
            **{name: getattr(rollout.own, name) for name in KEPT},
            "start_memory": rollout.start_memory,
            "log_std": rollout.log_std,
            "valid": rollout.valid,
            "ppo": ppo.state_dict(),
        },
        path,
    )


def alone(folder, case, valid):
    """What one process learns from the whole rollout; saves the rollout for the ranks."""
    ppo, rollout = act()
    rollout.valid = valid
    save(folder / f"{case}.pt", ppo, rollout)
    figures = [ppo.learn(rollout) for _ in range(UPDATES)]
    return {"ppo": ppo.state_dict(), "figures": figures}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What one process found, and each of two ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    valid = torch.ones(HORIZON, ENVS, dtype=torch.bool)
    # of each rank the same number in every minibatch, as only then means of means are means
    valid[2] = False
    expected = {
        "all_valid": alone(folder, "all_valid", None),
        "some_invalid": alone(folder, "some_invalid", valid),
    }
    words = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
    subprocess.run([sys.executable, *words, __file__, folder], check=True, timeout=TIMEOUT_S)
    ranks = [torch.load(folder / f"rank_{k}.pt", weights_only=True) for k in range(RANKS)]
    return expected, ranks


def tensors_of(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for item in value for tensor in tensors_of(item)] if type(value) is list else []


@pytest.mark.parametrize("case", ["all_valid", "some_invalid"])
def test_two_ranks_with_half_the_environments_learn_what_one_learns_with_all(results, case):
    expected, ranks = results
    one, two = expected[case], ranks[0][case]
    for net in ("actor", "critic", "value_normalizer", "actor_optimizer", "critic_optimizer"):
        pairs = zip(tensors_of(one["ppo"][net]), tensors_of(two["ppo"][net]), strict=True)
        for wanted, found in pairs:
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    for wanted, found in zip(one["figures"], two["figures"], strict=True):
        del wanted["explained_variance"], found["explained_variance"]  # of a rank's own rollout
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-6)
        assert wanted["learning_rate"] != 1e-3, "the adaptive schedule has nothing to do here"


@pytest.mark.parametrize("case", ["all_valid", "some_invalid"])
def test_the_ranks_hold_the_same_weights_bit_for_bit(results, case):
    first, second = (rank[case]["ppo"] for rank in results[1])
    for net in ("actor", "critic", "value_normalizer", "actor_optimizer", "critic_optimizer"):
        pairs = zip(tensors_of(first[net]), tensors_of(second[net]), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)


def test_every_exchange_gives_all_ranks_the_same(results):
    for rank in results[1]:
        found = rank["exchange"]
        assert found["averaged"] == [0.5, 0.5, 0.5, 1.5]
        assert found["error"].startswith("iteration 7: the weights of ranks [1] differ")
        assert found["weights"].tolist() == [1.0] * 3
        assert found["rows"].tolist() == [[1] * 3] * 2
        assert found["flags"] == (False, True, True)
        assert found["sum"] == (1.0, 1.0)
        assert found["shared"] == "from 1"
        samples = found["samples"]
        wanted = [torch.tensor(7.0), samples.mean(0), samples.var(0, correction=0)]
        for name in ("moments", "lonely"):
            torch.testing.assert_close(found[name], wanted)
        assert found["nothing"][0] == 0
        assert not found["nothing"][1].any() and not found["nothing"][2].any()


def test_episodes_of_all_ranks_count_and_lead_to_one_difficulty(results):
    torch.manual_seed(2)
    own = [collected(rank) for rank in range(RANKS)]
    rows = torch.cat([rollout.episode for rollout in own])
    expected = tally_of(replace(own[0], episode=rows, ended=torch.ones(51, dtype=torch.bool)))
    assert expected["adr"]["increment"] == 26, "that takes the episodes of both"
    for rank in results[1]:
        found = rank["exchange"]
        assert found["tally"] == expected
        assert found["rollout"] == [0.5, 3]


def test_alone_everything_stays_as_it_is():
    peers = Peers()
    tensor = torch.tensor([1.0, 2.0])
    peers.average_([tensor])
    peers.broadcast_([tensor])
    assert tensor.tolist() == [1.0, 2.0]
    assert peers.gather(tensor) is tensor
    assert peers.any(True, False) == (True, False)
    assert peers.sum(1.5) == (1.5,)
    assert peers.share(b"x") == b"x"
    peers.check_equal([{"weight": tensor}], "here")


def test_whoever_is_not_started_by_torchrun_is_told_how(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match=r"RANK, LOCAL_RANK.*torchrun"):
        connect_peers(timeout_s=1.0)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_out_must_be_a_time(timeout_s):
    with pytest.raises(ConfigError, match="--peer-timeout-s"):
        connect_peers(timeout_s)


def main():
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    peers = connect_peers(timeout_s=60.0)
    try:
        result = {"exchange": exchange(peers)}
        for case in ("all_valid", "some_invalid"):
            saved = torch.load(folder / f"{case}.pt", weights_only=True)
            result[case] = learn(peers, saved)
        torch.save(result, folder / f"rank_{peers.rank}.pt")
    finally:
        peers.close()


if __name__ == "__main__":
    main()
