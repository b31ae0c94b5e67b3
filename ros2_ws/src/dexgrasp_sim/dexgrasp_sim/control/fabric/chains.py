"""Sums over the joints that move a point, and over the points that a joint moves; batch last.

Both follow the tree of joints. A product with the matrix "joint j moves point p" says the same,
but a library's sums depend on the batch (see `linear_algebra`), and most factors are zero. On GPUs
it is the better way, because it is one operation.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from dexgrasp_sim.linear_algebra import keeps_order, sum_rows


class JointChains:
    """P points, each fixed to the frame of one of J joints, its carrier.

    Attributes:
        order: The joints by level, which is how many joints stand between them and the base.
            Tensors over joints are in this order here.
    """

    def __init__(
        self,
        parents: Sequence[int | None],
        carriers: Sequence[int],
        origins: Tensor,
        points: Tensor,
    ) -> None:
        """Args:
        parents: Of each of J joints the next one toward the base, which stands before it.
        carriers: Of each of P points.
        origins: [J, 3] m, of the joint frames at any posture.
        points: [P, 3] m, at the same posture.
        """
        self._given, self._device = (parents, carriers, origins, points), origins.device
        levels: list[int] = []
        for parent in parents:
            levels.append(0 if parent is None else levels[parent] + 1)
        self.order = sorted(range(len(parents)), key=lambda joint: levels[joint])
        places = {joint: place for place, joint in enumerate(self.order)}
        # a joint on the base counts as its own parent
        near = [joint if parent is None else parent for joint, parent in enumerate(parents)]
        self._parents = [places[near[joint]] for joint in self.order]
        self._prepare_levels([levels.count(level) for level in range(max(levels) + 1)])
        self._prepare_rounds([places[carrier] for carrier in carriers])
        origins = origins[self.order]
        self._links = _norm(origins - origins[self._parents])[:, None]  # [J, 1]
        self._ends = _norm(points - origins[self._carriers])[:, None]  # [P, 1]
        self._ancestors = self._add_parents_(torch.eye(len(parents)).to(origins))  # [J, J]
        self._moves = self.at_points(self._ancestors)  # [P, J]
        self._carried = self._moves[self._by_round].mT  # [J, P], points as for `collect`

    def _prepare_levels(self, sizes: list[int]) -> None:
        """Where the parents of each level but the first stand in the level before; None if that
        level can be broadcast to this one as it is.
        """
        self._sizes, first = sizes, 0
        self._parents_by_level: list[Tensor | None] = []
        for size, next_size in pairwise(sizes):
            places = self._parents[first + size : first + size + next_size]
            rows = [place - first for place in places]
            whole = size == 1 or rows == list(range(size))
            self._parents_by_level.append(None if whole else self._index(rows))
            first += size
        self._parent_index = self._index(self._parents)

    def _prepare_rounds(self, carriers: list[int]) -> None:
        """Sorts the points by their rank among those of their carrier, carriers of many first.

        Then each round of equal ranks has the first few of the carriers of the round before.
        """
        self._carriers = self._index(carriers)
        self._loaded = sorted(set(carriers), key=lambda place: (-carriers.count(place), place))
        ranks = [carriers[:point].count(place) for point, place in enumerate(carriers)]
        keys = [(rank, self._loaded.index(place)) for rank, place in zip(ranks, carriers)]
        self._by_round = self._index(sorted(range(len(keys)), key=lambda point: keys[point]))
        self._rounds = [ranks.count(rank) for rank in range(max(ranks) + 1)]

    def _index(self, values: list[int]) -> Tensor:
        return torch.tensor(values, device=self._device)

    def some(self, points: slice) -> "JointChains":
        """The chains of some of the points."""
        parents, carriers, origins, positions = self._given
        return JointChains(parents, carriers[points], origins, positions[points])

    def moves(self, points: Tensor) -> Tensor:
        """[J, K]: 1 where the joint moves the one of the points [K], else 0."""
        return self._moves.index_select(0, points).mT

    def walk(self, values: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Level by level away from the base: the values of the parents, then of the joints.

        Both are of shape [..., K, N], where the parents may be one for all; the joints' are a view
        of `values` [..., J, N], and what is written there is read as the next parents'.
        """
        before, *levels = values.split(self._sizes, -2)
        for own, parents in zip(levels, self._parents_by_level, strict=True):
            yield before if parents is None else before.index_select(-2, parents), own
            before = own

    def accumulate_(self, values: Tensor) -> Tensor:
        """Adds to each joint's values [..., J, N] those of all joints between it and the base.

        Returns:
            The sums; `values` may be overwritten.
        """
        return self._add_parents_(values) if keeps_order(values) else self._ancestors @ values

    def _add_parents_(self, values: Tensor) -> Tensor:
        for parents, own in self.walk(values):
            own.add_(parents)
        return values

    def at_points(self, values: Tensor) -> Tensor:
        """The values [..., J, N] of the points' carriers, [..., P, N]."""
        return values.index_select(-2, self._carriers)

    def reach(self, accumulated: Tensor) -> Tensor:
        """Bound [..., P, N] in m of how far points move when joints turn.

        Sum over the joints that move a point of their turn times the length of the chain from the
        joint to the point, an upper bound of their distance in any posture.

        Args:
            accumulated: [..., J, N] rad, what `accumulate_` made of the joints' turns.
        """
        lengths = self._links * accumulated.index_select(-2, self._parent_index)
        ends = self._ends * self.at_points(accumulated)
        return self.at_points(self.accumulate_(lengths)) + ends

    def by_round(self, values: Tensor) -> Tensor:
        """The values [..., P, N] of the points in the order that `collect` wants."""
        return values.index_select(-2, self._by_round)

    def collect(self, values: Tensor) -> Tensor:
        """Sums [..., J, N] of the values of all points that a joint moves.

        Args:
            values: [..., P, N], ordered by `by_round`; overwritten.
        """
        if not keeps_order(values):
            return self._carried @ values
        first, *others = values.split(self._rounds, -2)
        for other in others:
            first[..., : other.shape[-2], :].add_(other)
        sums: list[Tensor | None] = [None] * len(self.order)
        for place, carried in zip(self._loaded, first.unbind(-2), strict=True):
            sums[place] = carried
        for place, parent in reversed(list(enumerate(self._parents))):
            carried, others = sums[place], sums[parent]
            if carried is not None and parent != place:
                sums[parent] = carried if others is None else others + carried
        nothing = torch.zeros_like(values[..., 0, :])
        return torch.stack([nothing if carried is None else carried for carried in sums], -2)


def _norm(vectors: Tensor) -> Tensor:
    """Lengths [K] of vectors [K, 3]."""
    return sum_rows(vectors.square().mT).sqrt()
