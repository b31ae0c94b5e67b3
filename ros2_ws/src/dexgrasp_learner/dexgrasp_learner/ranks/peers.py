"""Learners that take every optimizer step together: data parallelism, on one or several hosts.

Each rank is a learner with simulators of its own, and `torchrun` starts it. All ranks hold the
same weights, average their gradients and share everything that affects the update: normaliser
statistics, episodes, learning rate and difficulty. The gradients of all ranks have equal weight,
even if one had fewer valid steps. CPU tensors are exchanged with gloo, GPU tensors with NCCL.
"""

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from typing_extensions import override

from dexgrasp_sim.config import ConfigError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that torchrun sets for each rank."""

_BUCKET_BYTES = 32 * 2**20
"""Gradients are sent in pieces of about this size: few messages, little memory for the copy."""


class PeerLost(RuntimeError):
    """Another rank has ended, or has not answered within the time-out."""


class PeersDiffer(RuntimeError):
    """The ranks no longer hold the same weights."""


class Peers:
    """The ranks of a run, as seen from one of them; this base class is a run with a single rank.

    Every rank calls the same methods in the same order. All methods raise `PeerLost`.

    Attributes:
        rank: Rank of this learner, from 0.
        size: Number of ranks.
    """

    rank = 0
    size = 1

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replaces float tensors, all of one device and type, by their mean over all ranks."""

    def broadcast_(self, tensors: Sequence[Tensor], source: int = 0) -> None:
        """Replaces tensors by those of rank `source`."""

    def gather(self, rows: Tensor) -> Tensor:
        """The rows [n, ...] of all ranks in the order of the ranks, [sum of all n, ...].

        With several ranks the result is on the CPU.
        """
        return rows

    def share(self, data: bytes, source: int = 0) -> bytes:
        """The `data` of rank `source`, on all ranks; that of the others is ignored."""
        del source
        return data

    def close(self) -> None:
        """Leaves the group; idempotent."""

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether any rank has set it; the same result on all ranks."""
        if self.size == 1:
            return flags
        return tuple(self.gather(torch.tensor([flags])).any(0).tolist())

    def sum(self, *values: float) -> tuple[float, ...]:
        """The sum of each value over all ranks; the same result on all ranks."""
        if self.size == 1:
            return values
        return tuple(self.gather(torch.tensor([values], dtype=torch.float64)).sum(0).tolist())

    def moments(self, samples: Tensor) -> tuple[int, Tensor, Tensor]:
        """Count, mean and variance of the samples of all ranks as if they were one batch.

        Chan, Golub, LeVeque: "Updating formulae and a pairwise algorithm for computing sample
        variances" (1979).

        Args:
            samples: float [n, ...]; n may be 0.

        Returns:
            The number of samples of all ranks, their mean [...] and their mean squared deviation
            from it [...], both zero without samples.
        """
        count, mean = len(samples), samples.new_zeros(samples.shape[1:])
        variance = mean
        if count:
            mean, variance = samples.mean(0), samples.var(0, correction=0)
        if self.size == 1:
            return count, mean, variance
        # own [1 + 2 K] for K elements of a sample; one row per rank in the table
        own = torch.cat([mean.new_tensor([count]), mean.flatten(), variance.flatten()]).double()
        table = self.gather(own[None])  # [ranks, 1 + 2 K]
        counts, means, variances = table.tensor_split((1, 1 + mean.numel()), dim=1)
        total = max(counts.sum().item(), 1.0)
        joint = (counts * means).sum(0) / total  # [K]
        spread = (counts * (variances + (means - joint).square())).sum(0) / total
        return int(counts.sum()), joint.view_as(mean).to(mean), spread.view_as(mean).to(mean)

    def check_equal(self, states: Sequence[Mapping[str, Tensor]], where: str) -> None:
        """Makes sure that all ranks hold the same tensors, bit for bit.

        Raises:
            PeersDiffer: They do not; the message names the ranks.
        """
        own = _digest(states) if self.size > 1 else 0
        digests = self.gather(torch.tensor([own])).tolist()
        differing = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
        if differing:
            raise PeersDiffer(
                f"{where}: the weights of ranks {differing} differ from those of rank 0; resume "
                "from the last checkpoint, with the same kind of device on all ranks"
            )


class TorchPeers(Peers):
    """The ranks of a torch.distributed group."""

    def __init__(self, timeout_s: float) -> None:
        """Joins the group that the environment variables name; see `connect_peers`."""
        self.rank = int(os.environ["RANK"])
        self.size = int(os.environ["WORLD_SIZE"])
        self._timeout_s = timeout_s
        backend = "gloo"
        if torch.cuda.is_available() and dist.is_nccl_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
            # without this a time-out of NCCL ends the process instead of raising an error
            os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
            backend = "cpu:gloo,cuda:nccl"
        with self._named("joining the run"):
            dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))

    @override
    def average_(self, tensors: Sequence[Tensor]) -> None:
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            with self._named("averaging gradients"):
                dist.all_reduce(flat)
            flat /= self.size
            parts = flat.split([tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts):
                tensor.copy_(part.view(tensor.shape))

    @override
    def broadcast_(self, tensors: Sequence[Tensor], source: int = 0) -> None:
        with self._named(f"receiving from rank {source}"):
            for tensor in tensors:
                dist.broadcast(tensor, source)

    @override
    def gather(self, rows: Tensor) -> Tensor:
        rows = rows.cpu().contiguous()
        counts = [int(count) for count in self._gather_equal(torch.tensor([len(rows)]))]
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = zip(self._gather_equal(padded), counts)
        return torch.cat([part[:count] for part, count in parts])

    @override
    def share(self, data: bytes, source: int = 0) -> bytes:
        size = torch.tensor([len(data)])
        self.broadcast_([size], source)
        if self.rank == source:
            buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        else:
            buffer = torch.empty(int(size), dtype=torch.uint8)
        self.broadcast_([buffer], source)
        return buffer.numpy().tobytes()

    @override
    def close(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()

    def _gather_equal(self, rows: Tensor) -> list[Tensor]:
        """Rows [n, ...] of each rank, the same n everywhere."""
        gathered = [torch.empty_like(rows) for _ in range(self.size)]
        if rows.numel() > 0:
            with self._named("sharing statistics"):
                dist.all_gather(gathered, rows)
        return gathered

    @contextmanager
    def _named(self, doing: str) -> Iterator[None]:
        """Turns torch's errors into a one-line `PeerLost` that names the rank and the action."""
        try:
            yield
        except RuntimeError as error:
            others = [str(rank) for rank in range(self.size) if rank != self.rank]
            who = f"rank {others[0]}" if len(others) == 1 else f"one of ranks {', '.join(others)}"
            reason = str(error).splitlines()[0].rpartition("] ")[2].partition(". ")[0]
            raise PeerLost(
                f"rank {self.rank} lost {who} while {doing} (time-out {self._timeout_s:g} s): "
                f"{reason}; look at its log, then go on with --resume"
            ) from error


def connect_peers(timeout_s: float) -> TorchPeers:
    """Joins the ranks that torchrun has started.

    Args:
        timeout_s: How long a rank waits for the others, here and in every later exchange. It must
            exceed the time by which the slowest rank may lag behind the fastest in an iteration.

    Raises:
        ConfigError: torchrun has not started this process, or the time-out is not positive.
        PeerLost: The others have not joined in time.
    """
    if not 0 < timeout_s < math.inf:
        raise ConfigError(f"--peer-timeout-s {timeout_s:g}: must be a number of seconds above 0")
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:
        raise ConfigError(
            f"--distributed: {', '.join(missing)} not set; start it as torchrun "
            "--nproc-per-node N --no-python dexgrasp train CONFIG --distributed"
        )
    return TorchPeers(timeout_s)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Groups of consecutive tensors; a group ends with the tensor that reaches `_BUCKET_BYTES`."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        bucket.append(tensor)
        size += tensor.numel() * tensor.element_size()
        if size >= _BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket


def _digest(states: Sequence[Mapping[str, Tensor]]) -> int:
    """63 bits of SHA-256 over the bytes of tensors."""
    digest = hashlib.sha256()
    for state in states:
        for name, tensor in state.items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return int.from_bytes(digest.digest()[:8], "big") >> 1
