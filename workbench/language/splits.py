"""Splits: which combinations of slots belong to training and which are held out.

A :class:`Grid` is a product of slots (say subject × place × verb). A keyed hash puts every cell of it into the
training or the test split, so a test document is made of familiar words in combinations never seen together.
Within a split the cell is drawn uniformly among the cells that belong to it; slot by slot this means that each
option is weighted by how many cells of the split it still leaves, which is exact: no draw is ever rejected.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Literal, get_args

import numpy as np

Split = Literal["all", "train", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
HELD_OUT = 0.1
"""Share of the cells of a grid that only the test split uses."""


def check_split(split: str) -> None:
    """Raise unless ``split`` is one of :data:`SPLITS`."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(map(repr, SPLITS))}, got {split!r}.")


class Grid:
    """A product of slots whose cells are divided among the splits.

    Args:
        name: Keys the hash, so grids of equal shape are divided independently.
        slots: The options of each slot, in the order in which the program chooses them.
        allow: Says of each cell (as options) whether it exists at all; all do by default.
        one_per_row: Hold out exactly one cell in every third row of a two-slot grid instead of hashing every cell:
            then each row is also seen in training (facts, of which each must be learnable).
    """

    def __init__(
        self,
        name: str,
        *slots: Sequence[Any],
        allow: Callable[..., bool] | None = None,
        one_per_row: bool = False,
    ) -> None:
        if one_per_row and (len(slots) != 2 or allow is not None):
            raise ValueError(f"one_per_row needs a grid of 2 slots whose cells all exist, got {len(slots)} slots.")
        self.name, self.slots, self.allow, self.one_per_row = name, slots, allow, one_per_row
        self._mass: dict[Split, list[np.ndarray]] = {}
        self._weights: dict[tuple[tuple[int, ...], Split], list[float]] = {}
        self._cumulative: dict[tuple[tuple[int, ...], Split], list[float]] = {}

    def members(self, split: Split) -> np.ndarray:
        """Return which cells belong to ``split``, as booleans of the grid's shape."""
        return self._masses(split)[-1] > 0

    def _masses(self, split: Split) -> list[np.ndarray]:
        """Return, for each number of slots already chosen, how many cells of ``split`` each option leaves."""
        if split not in self._mass:
            shape = tuple(len(options) for options in self.slots)
            exists = self._exists(shape)
            mass = [exists & (split == "all" or (split == "test") == self._held(exists))]
            while mass[0].ndim > 1:
                mass.insert(0, mass[0].sum(-1))
            self._mass[split] = mass
        return self._mass[split]

    def _exists(self, shape: tuple[int, ...]) -> np.ndarray:
        exists = np.ones(shape, dtype=bool)
        if self.allow is not None:
            for cell in np.ndindex(shape):
                exists[cell] = self.allow(*(options[i] for options, i in zip(self.slots, cell, strict=True)))
        return exists

    def _held(self, exists: np.ndarray) -> np.ndarray:
        held = np.zeros_like(exists)
        if self.one_per_row:
            rows = sorted(range(len(exists)), key=lambda row: _uniform(f"{self.name}|{row} is held"))
            for row in rows[: -(-len(rows) // 3)]:
                held[row, int(_uniform(f"{self.name}|{row}") * exists.shape[1])] = True
            return held
        draws = np.ones(exists.shape)
        for cell in zip(*exists.nonzero(), strict=True):
            draws[cell] = _uniform(f"{self.name}|{tuple(map(int, cell))}")
        return draws <= max(HELD_OUT, draws.min())  # a small grid holds out one cell at least

    def weights(self, cell: tuple[int, ...], split: Split) -> list[float]:
        """Return the weight of each option of the next slot after ``cell``: the cells it leaves."""
        found = self._weights.get((cell, split))
        if found is None:
            found = self._weights[cell, split] = self._masses(split)[len(cell)][cell].astype(float).tolist()
        return found

    def cumulative(self, cell: tuple[int, ...], split: Split) -> list[float]:
        """Return the running sum of :meth:`weights`, cached for sampling."""
        found = self._cumulative.get((cell, split))
        if found is None:
            found = self._cumulative[cell, split] = np.cumsum(self.weights(cell, split)).tolist()
        return found


def _uniform(key: str) -> float:
    """Return a fixed number in [0, 1) that looks random as ``key`` varies."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) / 2**64
