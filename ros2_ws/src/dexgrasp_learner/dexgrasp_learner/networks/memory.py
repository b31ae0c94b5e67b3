"""LSTM over rollouts in which episodes may start at any step."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from typing_extensions import override


class NoMemory(nn.Module):
    """Replaces the LSTM in nets without memory: output and memory have width 0."""

    size = 0

    def forward(self, features: Tensor, start: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Returns an output [T, N, 0] and the unchanged memory [2, N, 0]."""
        return features[..., :0], memory


class LstmMemory(nn.Module):
    """One LSTM layer whose state is reset to zero where an episode starts.

    Several steps run as one packed call: the steps of each environment are split at its episode
    starts, and the pieces are computed in parallel, longest first, without padding.
    """

    def __init__(self, input_size: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.lstm = nn.LSTM(input_size, size)

    @override
    def train(self, mode: bool = True) -> "LstmMemory":
        """Sets the mode, but of the LSTM always the training mode, in which alone a GPU
        differentiates it; it has no dropout, so that its results are the same in both.
        """
        super().train(mode)
        self.lstm.train()
        return self

    def forward(self, features: Tensor, start: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Runs the memory over a rollout.

        Args:
            features: float32 [T, N, input_size].
            start: bool [T, N], True where step t is the first of an episode: the memory that
                enters that step is zero.
            memory: float32 [2, N, size], the state (h, c) before step 0.

        Returns:
            Outputs [T, N, size] and the state [2, N, size] after the last step.
        """
        if features.shape[0] == 1:
            return self.step(features, start, memory)
        return self.packed(features, start, memory)

    def step(self, features: Tensor, start: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` for T = 1; traceable."""
        memory = memory * (~start[0]).to(memory.dtype).unsqueeze(-1)
        output, (hidden, cell) = self.lstm(features, (memory[:1], memory[1:]))
        return output, torch.cat((hidden, cell))

    def packed(self, features: Tensor, start: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` for any T."""
        steps, envs = start.shape
        pieces = _Pieces(start)
        carried = memory[:, pieces.env] * pieces.continues.unsqueeze(-1)  # [2, P, size]
        rows = features.transpose(0, 1).reshape(envs * steps, -1)  # [N * T, input_size]
        packed_rows = torch.empty_like(rows).index_copy(0, pieces.packed_row, rows)
        output, (hidden, cell) = self.lstm(
            PackedSequence(packed_rows, pieces.batch_sizes), (carried[:1], carried[1:])
        )
        # [T, N, size]
        outputs = output.data[pieces.packed_row].view(envs, steps, -1).transpose(0, 1)
        return outputs, torch.cat((hidden, cell))[:, pieces.last_of_env]


class _Pieces:
    """The episode pieces of a rollout, sorted by descending length.

    Attributes:
        env: int64 [P], the environment of each piece.
        continues: bool [P], whether a piece continues an episode from before the rollout.
        packed_row: int64 [N * T], index in the packed data of row n * T + t.
        batch_sizes: int64 [longest] on the CPU, how many pieces have a step k.
        last_of_env: int64 [N], the piece that ends the row of each environment.
    """

    def __init__(self, start: Tensor) -> None:
        steps, envs = start.shape
        device = start.device
        cut = start.clone()
        cut[0] = True
        cut_rows = cut.t().reshape(-1)  # [N * T]
        piece_of_row = torch.cumsum(cut_rows, 0) - 1  # [N * T]
        begin = torch.nonzero(cut_rows).squeeze(1)  # [P]
        end = torch.cat((begin[1:], begin.new_tensor([envs * steps])))  # [P]
        length = end - begin
        order = torch.argsort(length, descending=True, stable=True)
        rank = torch.empty_like(order)  # [P], place of each piece in the order of lengths
        rank[order] = torch.arange(len(order), device=device)

        position = torch.arange(envs * steps, device=device) - begin[piece_of_row]  # [N * T]
        sizes = torch.bincount(position)  # [longest]
        offset = torch.cumsum(sizes, 0) - sizes
        self.packed_row = offset[position] + rank[piece_of_row]
        self.batch_sizes = sizes.cpu()
        self.env = (begin // steps)[order]
        self.continues = (begin % steps == 0)[order] & ~start[0, self.env]
        self.last_of_env = rank[piece_of_row.view(envs, steps)[:, -1]]
