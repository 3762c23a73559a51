"""Quantiles of many streams at once, in memory that does not grow with them.

Values of one feature gather in a buffer. A full one is sorted and every other value kept, from the first or the
second at random, to stand for two; those gather in the next level, where each stands for four, and so on (Munro and
Paterson 1980; Agarwal et al. 2012, "Mergeable summaries"). The random beginning makes the errors of levels and times
cancel: after any number of values the rank of a quantile is wrong by about ``1 / SIZE`` of them, and below ``SIZE``
values it is exact.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

SIZE = 1024
"""Values in a buffer."""

PART = 1024
"""Features asked about at a time."""


class Sketch:
    """Quantiles of the values of each of ``n`` features."""

    def __init__(self, n: int, seed: int = 0) -> None:
        self.count = torch.zeros(n, dtype=torch.long)
        """Values seen of each feature."""
        self._random = torch.Generator().manual_seed(seed)
        self._buffer = torch.zeros(n, SIZE)
        self._fill = torch.zeros(n, dtype=torch.long)
        # Of each level above: where a feature's values lie in ``_held``, -1 if nowhere yet, and whether they count.
        self._slot: list[Tensor] = []
        self._used: list[Tensor] = []
        self._held: list[Tensor] = []

    def add(self, features: Int[Tensor, " entry"], values: Float[Tensor, " entry"]) -> None:
        """Take values of features, those of one feature next to each other."""
        left = torch.bincount(features, minlength=len(self.count))
        self.count += left
        first = left.cumsum(0) - left
        row = torch.arange(len(left)) * SIZE
        while left.any():
            now = torch.minimum(left, SIZE - self._fill)
            before = now.cumsum(0) - now
            every = torch.arange(int(now.sum()))
            places = every + torch.repeat_interleave(row + self._fill - before, now)
            self._buffer.view(-1)[places] = values[every + torch.repeat_interleave(first - before, now)]
            self._fill += now
            first += now
            left -= now
            full = (self._fill == SIZE).nonzero()[:, 0]
            if len(full):
                self._compact(0, full, self._buffer[full])
                self._fill[full] = 0

    def _compact(self, level: int, features: Tensor, values: Tensor) -> None:
        """Hand every other of the ``SIZE`` values of each of ``features`` to the level above."""
        if level == len(self._held):
            self._slot.append(torch.full_like(self.count, -1))
            self._used.append(torch.zeros(len(self.count), dtype=torch.bool))
            self._held.append(torch.zeros(0, SIZE // 2))
        first = torch.randint(2, (len(features), 1), generator=self._random)
        ordered = torch.from_numpy(np.sort(values.numpy()))  # many times as fast as torch
        kept = ordered.gather(1, torch.arange(0, SIZE, 2) + first)
        slot, used = self._slot[level], self._used[level]
        new = features[slot[features] < 0]
        slot[new] = len(self._held[level]) + torch.arange(len(new))
        self._held[level] = torch.cat([self._held[level], torch.zeros(len(new), SIZE // 2)])
        meets = used[features]
        self._held[level][slot[features[~meets]]] = kept[~meets]
        used[features] = ~meets
        if meets.any():
            both = torch.cat([self._held[level][slot[features[meets]]], kept[meets]], 1)
            self._compact(level + 1, features[meets], both)

    def at(self, q: Float[Tensor, " q"]) -> Float[Tensor, "n q"]:
        """Return the values below which shares ``q`` of each feature's values lie; NaN where there is none."""
        found = []
        for values, ranks in self._ranked():
            wanted = q.double() * ranks[:, -1:] - 1e-6  # a rank that is whole but for rounding is meant
            chosen = torch.searchsorted(ranks, wanted.clamp_min(0.5)).clamp_max(values.shape[1] - 1)
            found.append(torch.where(ranks[:, -1:] > 0, values.gather(1, chosen), torch.nan))
        return torch.cat(found)

    def shares(self, edges: Float[Tensor, "n edges"]) -> Float[Tensor, "n edges-1"]:
        """Return which share of each feature's values lies between its edges, the upper one included."""
        found = []
        for (values, ranks), marks in zip(self._ranked(), edges.split(PART), strict=True):
            under = torch.searchsorted(values, marks.contiguous(), right=True)
            below = F.pad(ranks, (1, 0)).gather(1, under)
            found.append((below.diff(dim=1) / ranks[:, -1:].clamp_min(1)).float())
        return torch.cat(found)

    def _ranked(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the values held of some features in order, and how many values lie at or below each."""
        for features in torch.arange(len(self.count)).split(PART):
            values, weights = self._weighted(features)
            order = torch.from_numpy(np.argsort(values.numpy()))
            yield values.gather(1, order), weights.gather(1, order).double().cumsum(1)

    def _weighted(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return all values held of ``features``, and how many each stands for; an empty place stands for none."""
        full = int(self._fill[features].max())
        values = [self._buffer[features, :full]]
        weights = [(torch.arange(full) < self._fill[features, None]).float()]
        for level, (slot, used, held) in enumerate(zip(self._slot, self._used, self._held, strict=True)):
            if used[features].any():
                values.append(held[slot[features].clamp_min(0)])
                weights.append((2.0 ** (level + 1) * used[features, None]).expand(-1, SIZE // 2))
        joined, standing = torch.cat(values, 1), torch.cat(weights, 1)
        return torch.where(standing > 0, joined, torch.inf), standing
