"""The best of a stream for each of many features, with what belongs to them."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

PART = 1024
"""Candidates whose belongings are looked up at a time."""


class Best:
    """Of each feature, the ``n`` entries of highest score, each with named tensors that belong to it.

    By value they are the top examples; by a random number, a uniform sample.
    """

    def __init__(self, n_features: int, n: int) -> None:
        self.scores = torch.full((n_features, n), -torch.inf)
        """[n_features, n], minus infinity in an empty place."""
        self.of: dict[str, Tensor] = {}
        """What belongs to each, [n_features, n, ...]."""

    def add(
        self,
        features: Int[Tensor, " entry"],
        scores: Float[Tensor, " entry"],
        belongings: Callable[[Tensor], dict[str, Tensor]],
    ) -> None:
        """Take entries, those of one feature next to each other; ``belongings(i)`` is asked only for what is kept."""
        n = self.scores.shape[1]
        chosen = (scores > self.scores.amin(1)[features]).nonzero()[:, 0]
        # Best first within each feature: two stable sorts.
        chosen = chosen[scores[chosen].argsort(descending=True, stable=True)]
        chosen = chosen[features[chosen].argsort(stable=True)]
        touched, inverse, counts = features[chosen].unique_consecutive(return_inverse=True, return_counts=True)
        rank = torch.arange(len(chosen)) - (counts.cumsum(0) - counts)[inverse]
        chosen, inverse, rank = chosen[rank < n], inverse[rank < n], rank[rank < n]
        if not len(chosen):
            return
        fresh = torch.full((len(touched), n), -torch.inf)
        fresh[inverse, rank] = scores[chosen]
        number = torch.full((len(touched), n), -1)
        number[inverse, rank] = chosen
        best = torch.zeros(len(touched), 2 * n, dtype=torch.bool)
        best.scatter_(1, torch.cat([self.scores[touched], fresh], 1).topk(n, 1, sorted=False).indices, True)
        # What comes takes the places of what goes, of which each feature has as many; the rest stays where it is.
        row, column = (~best[:, :n]).nonzero(as_tuple=True)
        entry = number[best[:, n:]]
        real = entry >= 0
        row, column, entry = row[real], column[real], entry[real]
        self.scores[touched[row], column] = scores[entry]
        for part in torch.arange(len(entry)).split(PART):
            for name, tensor in belongings(entry[part]).items():
                if name not in self.of:
                    self.of[name] = tensor.new_zeros(*self.scores.shape, *tensor.shape[1:])
                self.of[name][touched[row[part]], column[part]] = tensor
