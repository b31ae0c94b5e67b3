"""What the ranks of a run agree on: config, folders, checkpoints, figures. See `ranks.peers`."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dexgrasp_learner.config import RunConfig
from dexgrasp_learner.pipeline.pipeline import Collected
from dexgrasp_learner.ranks.peers import Peers
from dexgrasp_learner.storage.checkpoint import load_state
from dexgrasp_learner.storage.checkpoint_files import FILES, find_checkpoint
from dexgrasp_learner.storage.run_folder import create_run_folder
from dexgrasp_sim.config import ConfigError, parse_config, to_dict
from dexgrasp_sim.vec_env import whole_episodes

_NETS = ("actor", "critic", "value_normalizer")


class Start(NamedTuple):
    """A checkpoint to resume from.

    Attributes:
        path: Its folder.
        is_own: Whether this rank has written it; else it holds another rank's random generators.
        is_exact: Whether every rank has the state of its simulators.
    """

    path: Path
    is_own: bool
    is_exact: bool


def shared_config(peers: Peers, read: Callable[[], RunConfig]) -> RunConfig:
    """The config of rank 0, the only rank that reads it.

    Raises:
        ConfigError: It cannot be read, or is not possible with several ranks.
        PeerLost: See `Peers`.
    """
    if peers.size == 1:
        return read()
    text = json.dumps(to_dict(read())).encode() if peers.rank == 0 else b""
    config = parse_config(RunConfig, json.loads(peers.share(text)), "the config of rank 0")
    if config.simulators.pipeline == "overlapped":
        raise ConfigError(
            "simulators.pipeline = 'overlapped': works with one learner only; say barrier or "
            "double_buffered, or leave --distributed"
        )
    return config


def rank_folder(peers: Peers, resume: Path | None, runs: Path, config: RunConfig) -> Path:
    """The run folder of this rank; every host has a complete one.

    Args:
        peers: All ranks.
        resume: The run folder to go on with, if any.
        runs: Parent of a new one.
        config: The run's.

    Returns:
        For rank 0 the run folder, for the others `rank_<k>` in it.
    """
    if peers.rank == 0:
        folder = resume or create_run_folder(runs, config.name, config)
        peers.share(folder.name.encode())
        return folder
    parent = runs / peers.share(b"").decode()
    parent, name = resume or parent, f"rank_{peers.rank}"
    if (parent / name).is_dir():
        return parent / name
    return create_run_folder(parent, config.name, config, run_id=name)


def agree_on_checkpoint(peers: Peers, path: Path, folder: Path) -> Start:
    """The checkpoint from which this rank resumes.

    If all ranks have a regular checkpoint of the same iteration, each rank uses its own.
    Otherwise, as after the loss of a rank, all use the newest one, which is copied to the others.

    Args:
        peers: All ranks.
        path: See `find_checkpoint`; a rank other than 0 may have none.
        folder: The run folder of this rank.

    Raises:
        ConfigError: No rank has a checkpoint.
    """
    if peers.size == 1:
        own = find_checkpoint(path)
        return Start(own, True, _has_simulators(own))
    own, iteration, complete = None, -1, False
    try:
        own = find_checkpoint(path if peers.rank == 0 else folder)
        iteration, complete = load_state(own)["iteration"], _has_simulators(own)
    except ConfigError:
        pass  # another rank may have one
    table = peers.gather(torch.tensor([[iteration, int(complete)]]))
    newest = int(table[:, 0].max())
    if newest < 0:
        raise ConfigError(f"{path}: no rank has a checkpoint there; give a run folder")
    if own is not None and bool((table == torch.tensor([newest, 1])).all()):
        return Start(own, True, True)
    source = int(table[:, 0].argmax())
    files = [
        peers.share((own / name).read_bytes() if own and peers.rank == source else b"", source)
        for name in FILES
    ]
    if own is not None and peers.rank == source:
        return Start(own, True, False)
    copied = folder / "resumed_from"
    (copied / "simulators").mkdir(parents=True, exist_ok=True)
    for name, data in zip(FILES, files):
        (copied / name).write_bytes(data)
    return Start(copied, False, False)


def gathered(peers: Peers, rollout: Collected) -> Collected:
    """The summary of the rollouts of all ranks; its `episode` holds complete episodes only."""
    if peers.size == 1:
        return rollout
    rows = peers.gather(whole_episodes(rollout.episode, rollout.ended))
    reward, invalid_steps = peers.sum(rollout.reward, rollout.invalid_steps)
    return replace(
        rollout,
        episode=rows,
        ended=torch.ones(len(rows), dtype=torch.bool),
        reward=reward / peers.size,
        invalid_steps=int(invalid_steps),
    )


def weights(state: dict[str, Any]) -> list[dict[str, Tensor]]:
    """The nets in the state of an algorithm, which must be equal on all ranks."""
    return [state[name] for name in _NETS if name in state]


def _has_simulators(checkpoint: Path) -> bool:
    return any((checkpoint / "simulators").glob("*"))
