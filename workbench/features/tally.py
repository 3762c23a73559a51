"""How often each feature meets each token, as far as it is often."""

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

KEPT = 64
"""Tokens remembered for each feature on average, where not all are."""

WHOLE = 2**24
"""Pairs up to which all are counted."""


class Tally:
    """Counts of pairs (feature, token), exact while all pairs that occur fit.

    Else the rarest pairs are forgotten, so that a count may be short by as many as were forgotten at a time, which is
    what the lossy counting of Manku and Motwani (2002) allows: the frequent tokens of a feature are right.
    """

    def __init__(self, n_features: int) -> None:
        self.n_features = n_features
        self._all: Tensor | None = torch.zeros(0, dtype=torch.long)
        """By token and feature, as far as tokens have been met; None where that would be too many."""
        self._pairs = torch.zeros(0, dtype=torch.long)
        self._counts = torch.zeros(0, dtype=torch.long)
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def add(self, features: Int[Tensor, " entry"], tokens: Int[Tensor, " entry"]) -> None:
        """Take entries."""
        pairs = tokens * self.n_features + features
        if self._all is not None:
            length = max(len(self._all), (int(tokens.max()) + 1) * self.n_features if len(tokens) else 0)
            if length <= WHOLE:
                self._all = F.pad(self._all, (0, length - len(self._all))) + torch.bincount(pairs, minlength=length)
                return
            met = self._all.nonzero()[:, 0]
            self._waiting, self._all = [(met, self._all[met])], None
        self._waiting.append(pairs.unique(return_counts=True))
        if sum(len(pairs) for pairs, _ in self._waiting) > KEPT * self.n_features:
            self._merge()

    def _merge(self) -> None:
        pairs, counts = map(torch.cat, zip((self._pairs, self._counts), *self._waiting, strict=True))
        self._waiting.clear()
        self._pairs, which = pairs.unique(return_inverse=True)
        self._counts = torch.zeros_like(self._pairs).index_add_(0, which, counts)
        if len(self._pairs) > 2 * KEPT * self.n_features:
            kept = self._counts.topk(KEPT * self.n_features).indices.sort().values
            self._pairs, self._counts = self._pairs[kept], self._counts[kept]

    def top(self, n: int) -> tuple[Int[Tensor, "n_features n"], Int[Tensor, "n_features n"]]:
        """Return the most frequent tokens of each feature and their counts; 0 in an empty place."""
        if self._all is not None:
            by_feature = self._all.view(-1, self.n_features).T
            counts, tokens = F.pad(by_feature, (0, max(0, n - by_feature.shape[1]))).topk(n, 1)
            return tokens, counts
        self._merge()
        order = self._counts.argsort(descending=True, stable=True)
        order = order[(self._pairs[order] % self.n_features).argsort(stable=True)]
        features = self._pairs[order] % self.n_features
        per = torch.bincount(features, minlength=self.n_features)
        rank = torch.arange(len(order)) - (per.cumsum(0) - per)[features]
        tokens, counts = torch.zeros(2, self.n_features, n, dtype=torch.long)
        here = rank < n
        tokens[features[here], rank[here]] = self._pairs[order[here]] // self.n_features
        counts[features[here], rank[here]] = self._counts[order[here]]
        return tokens, counts
