"""Which labels a feature stands for, chosen on one half of the rows and scored on the other."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

UNION = 10
"""Values of one label that a union holds at most."""

BLOCK = 2048
"""Features counted at a time."""

SETTLED = 3
"""Chunks after which each feature's best value is fixed, to count what else holds where both do."""


class Labels:
    """Counts of active features by label, and the best matches in them.

    A match is a value of a label, a union of up to ten values of one label, or two values of different labels that hold
    at once. It predicts that the feature is active where it holds. Chunks of the store fall to two halves in turn; a
    match is chosen by F1 on one and its precision, recall, F1 and Matthews correlation are those of the other.
    """

    def __init__(self, n_features: int, names: Mapping[str, tuple[str, ...]]) -> None:
        sizes = torch.tensor([len(values) for values in names.values()], dtype=torch.long)
        self.names = list(names)
        self.offsets = sizes.cumsum(0) - sizes
        self.of_column = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        """Value, numbered through all labels → its label."""
        n = int(sizes.sum())
        self.n_features = n_features
        self.real = torch.ones(n, dtype=torch.bool)
        self.real[self.offsets] = False  # 0 is where a label does not apply
        self.hits = torch.zeros(2, n_features, n, dtype=torch.int32)
        """Rows of each half where a feature is active and a value holds."""
        self.holds = torch.zeros(2, n, dtype=torch.long)
        self.active = torch.zeros(2, n_features, dtype=torch.long)
        self.rows = torch.zeros(2, dtype=torch.long)
        self._chunks = 0
        self._weights = torch.rand(len(sizes), dtype=torch.double, generator=torch.Generator().manual_seed(0))
        # From when the best value of each feature is fixed: the same counts where that value holds too.
        self.first: Tensor | None = None
        self._since = torch.zeros(2, 2, n_features, dtype=torch.long)
        self._both = torch.zeros(2, n_features, n, dtype=torch.int32)
        self._hold_both = torch.zeros(2, n, n, dtype=torch.long)

    def add(
        self, features: Int[Tensor, " entry"], row: Int[Tensor, " entry"], labels: Mapping[str, Tensor], *, half: int
    ) -> None:
        """Take the active features of a chunk, ``row`` saying where."""
        if not self.names:
            return
        values = torch.stack([labels[name] for name in self.names], 1) + self.offsets  # [row, label]
        # Few combinations of labels occur, so that what is true of rows is counted by combination first.
        keys, order = (values.double() @ self._weights).sort()
        mix = torch.empty_like(order)
        mix[order] = F.pad(keys[1:] != keys[:-1], (1, 0)).cumsum(0)
        times = torch.bincount(mix)
        some = torch.zeros_like(times).scatter_(0, mix, torch.arange(len(mix)))
        has = torch.zeros(len(times), len(self.real)).scatter_(1, values[some], 1)
        active = torch.bincount(features, minlength=self.n_features)
        self.active[half] += active
        self.rows[half] += len(values)
        has_T = has.T.contiguous()
        together = (has_T * times) @ has
        self.holds[half] += together.diagonal().long()
        self._chunks += 1
        if self.first is not None:
            self._since[half, 0] += active
            self._since[half, 1, 0] += len(values)
            self._hold_both[half] += together.long()
        for block in torch.arange(self.n_features).split(BLOCK):
            low, high = torch.searchsorted(features, torch.tensor([block[0], block[-1] + 1])).tolist()
            pairs = (features[low:high] - block[0]) * len(times) + mix[row[low:high]]
            by_mix = torch.bincount(pairs, minlength=len(block) * len(times)).view(len(block), -1).float()
            self.hits[half, block] += (by_mix @ has).int()
            if self.first is not None:
                self._both[half, block] += ((by_mix * has_T[self.first[block]]) @ has).int()
        if self._chunks == SETTLED:
            self.first = self._f1(0, self.hits[0], self.holds[0], self.active[0, :, None]).argmax(1)

    def _f1(self, half: int, hits: Tensor, holds: Tensor, active: Tensor) -> Tensor:
        f1 = 2 * hits / (holds + active).clamp_min(1)
        return torch.where(self.real, f1, -1)

    def matches(self) -> dict[str, Tensor]:
        """Return for each feature the best value, union and pair, as numbers through all labels, and their scores."""
        if not self.names or self.active.sum() == 0:
            return {}
        every = torch.arange(self.n_features)
        f1 = self._f1(0, self.hits[0], self.holds[0], self.active[0, :, None])
        single = f1.argmax(1)
        found = {"label": single[:, None]}
        found |= _scores("label", self.hits[1, every, single], self.holds[1, single], self.active[1], self.rows[1])

        union = torch.full((self.n_features, UNION), -1)
        best = torch.zeros(self.n_features)
        hits, holds = torch.zeros(2, self.n_features, dtype=torch.long)
        for column in range(len(self.names)):
            of = ((self.of_column == column) & self.real).nonzero()[:, 0]
            # F1 of a union is 2 Σ hits over Σ holds and what is constant: the best of a size are the best by ratio.
            order = (self.hits[0][:, of] / self.holds[0, of].clamp_min(1)).argsort(1, descending=True)[:, :UNION]
            ordered = of[order]
            sums = self.hits[0].gather(1, ordered).cumsum(1), self.holds[0][ordered].cumsum(1)
            scores = 2 * sums[0] / (sums[1] + self.active[0, :, None]).clamp_min(1)
            top, size = scores.max(1)
            better = (top > best).nonzero()[:, 0]
            best[better] = top[better]
            kept = torch.arange(ordered.shape[1]) <= size[better, None]
            union[better] = -1
            union[better, : ordered.shape[1]] = torch.where(kept, ordered[better], -1)
            hits[better] = (self.hits[1].gather(1, ordered)[better] * kept).sum(1)
            holds[better] = (self.holds[1][ordered[better]] * kept).sum(1)
        found["union"] = union
        found |= _scores("union", hits, holds, self.active[1], self.rows[1])

        if self.first is not None and self._since[1, 1, 0]:
            first = self.first
            f1 = self._f1(0, self._both[0], self._hold_both[0, first], self._since[0, 0][:, None])
            f1[self.of_column == self.of_column[first][:, None]] = -1
            second = f1.argmax(1)
            found["pair"] = torch.stack([first, second], 1)
            hold = self._hold_both[1, first, second]
            found |= _scores("pair", self._both[1, every, second], hold, self._since[1, 0], self._since[1, 1, 0])
        return found


def _scores(kind: str, hits: Tensor, holds: Tensor, active: Tensor, rows: Tensor) -> dict[str, Tensor]:
    """Return precision and recall as the label predicts the feature's activity seen from the feature, F1 and MCC."""
    hits, holds, active, n = hits.double(), holds.double(), active.double(), rows.double()
    spread = (holds * (n - holds) * active * (n - active)).sqrt()
    scores = {
        "precision": hits / active.clamp_min(1),
        "recall": hits / holds.clamp_min(1),
        "f1": 2 * hits / (holds + active).clamp_min(1),
        "mcc": (n * hits - holds * active) / spread.clamp_min(1),
    }
    return {f"{kind}_{name}": score.float() for name, score in scores.items()}
