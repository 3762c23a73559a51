"""FeatureChoice: each feature chooses its activations, as many as its rank allows."""

from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import Unpack, override

from workbench.dictionaries.dense import Dense
from workbench.dictionaries.inputs import Batch
from workbench.dictionaries.linear import Shared, follow, places

GOLDEN = 0.5 * (5**0.5 - 1)
"""A step of this size meets all of a circle evenly."""

MEMORY = 0.01
"""Weight of a batch in the running density of a feature."""


@final
class FeatureChoice(Dense):
    """Let each feature keep its ``m[i]`` largest pre-activations of a batch, where positive (Ayonrinde 2024).

    After arXiv 2411.02124, whose idea is that no feature can die that has activations of its own. What follows is our
    definition where the paper leaves room. Budgets follow Zipf's law in the rank, and the rank is the index:
    ``m[i]`` is ``B * frequency[i]``, ``frequency[i] ∝ (i + 1) ** -zipf``, at most 1, summing to ``k``. Budgets are
    rounded so that they sum to ``k * B`` in every batch, with a phase that moves on from batch to batch, so that a
    feature whose budget is a tenth has its turn in every tenth. The Zipf auxiliary loss is AuxK for the *dying*:
    features that have been active less than half as often as their frequency says, not only those that are dead.
    ``encode`` keeps what exceeds the feature's own threshold, calibrated to its frequency as that of BatchTopK is.

    Args:
        d_in: Width of the activations read.
        n_features: How many features.
        k: How many are active on an activation, on average.
        zipf: Exponent of the law; 0 gives each feature the same budget.
        shared: As for every architecture of one product, see ``Linear``.

    >>> FeatureChoice(8, 4, k=1, zipf=1.0).frequency
    tensor([0.4800, 0.2400, 0.1600, 0.1200])
    """

    frequency: Float[Tensor, " n_features"]
    threshold: Float[Tensor, " n_features"]
    density: Float[Tensor, " n_features"]
    phase: Float[Tensor, ""]
    exceeding: Float[Tensor, " n_features"]
    firing: Float[Tensor, " n_features"]

    def __init__(
        self, d_in: int, n_features: int, *, k: int, zipf: float | int = 1.0, **shared: Unpack[Shared]
    ) -> None:
        super().__init__(d_in, n_features, **shared)
        self.k = self.revived = places(k, n_features)
        if not 0 <= zipf < float("inf"):
            raise ValueError(f"zipf is an exponent, at least 0, got {zipf}.")
        self.zipf = zipf
        frequency = _zipf(n_features, k, zipf)
        # Neighbours in rank whose budgets differ by less than twice are selected together.
        halvings = (frequency[0] / frequency).log2().floor().clamp(max=30)
        self._groups = halvings.unique(return_counts=True)[1].tolist()
        self._most = frequency[torch.tensor([0, *self._groups]).cumsum(0)[:-1]].tolist()
        self.register_buffer("frequency", frequency.float(), persistent=False)
        self.register_buffer("threshold", torch.zeros(n_features))
        self.register_buffer("density", frequency.float())
        self.register_buffer("phase", torch.zeros(()))
        self.register_buffer("exceeding", frequency.float(), persistent=False)
        self.register_buffer("firing", frequency.float(), persistent=False)

    @property
    @override
    def options(self) -> dict[str, Any]:
        return {"k": self.k, "zipf": self.zipf}

    @torch.no_grad()
    def budgets(self, batch: int) -> Float[Tensor, " n_features"]:
        """Return how many of ``batch`` activations each feature may choose; they sum to ``k * batch``."""
        ends = (batch * self.frequency.double().cumsum(0) + self.phase).floor()
        ends[-1] = self.k * batch
        return ends.diff(prepend=ends.new_zeros(1))

    @torch.no_grad()
    def chosen(self, z: Float[Tensor, "batch n_features"]) -> Bool[Tensor, "batch n_features"]:
        """Return which pre-activations are among the ``budgets`` largest of their feature."""
        kept, budgets, start = [], self.budgets(len(z)), 0
        for n, most in zip(self._groups, self._most, strict=True):
            part = z[:, start : start + n]
            budget, start = budgets[start : start + n], start + n
            rows = part.topk(min(len(z), int(most * len(z)) + 2), dim=0).indices
            within = torch.arange(len(rows), device=z.device)[:, None] < budget
            kept.append(torch.zeros_like(part, dtype=torch.bool).scatter_(0, rows, within))
        return torch.cat(kept, dim=1)

    @override
    @torch.no_grad()
    def initialise(self, sample: Batch) -> None:
        super().initialise(sample)
        x, _ = self.pair(sample)
        z = (x - self.centre_in) * self.scale_in @ self.W_enc.T + self.b_enc
        least = z.masked_fill(~self.chosen(z), torch.inf).amin(0)
        self.threshold.copy_(torch.where(least.isinf(), z.amax(0), least).clamp_min(0))

    @override
    def _dense(self, u: Tensor, *, training: bool) -> Tensor:
        z = u @ self.W_enc.T + self.b_enc
        exceeds = z.detach() > self.threshold
        if not training:
            return torch.where(exceeds, z, 0)
        codes = torch.where(self.chosen(z), z.relu(), 0)
        self.exceeding = exceeds.to(self.density.dtype).mean(0)
        self.firing = (codes.detach() > 0).to(self.density.dtype).mean(0)
        return codes

    @override
    def neglected(self, silent: Bool[Tensor, " n_features"]) -> Bool[Tensor, " n_features"]:
        return silent | (self.density < self.frequency / 2)

    @override
    @torch.no_grad()
    def after_step(self, step: int) -> None:
        super().after_step(step)
        follow(self.threshold, self.exceeding / self.frequency)
        self.density.lerp_(self.firing, MEMORY)
        self.phase.add_(GOLDEN).frac_()

    @override
    def _fold_encoder(self) -> None:
        super()._fold_encoder()
        self.threshold.copy_(self.threshold.double() / self.scale_out)


def _zipf(n: int, total: int, exponent: float | int) -> Tensor:
    """Return frequencies in Zipf's law, at most 1, that sum to ``total``."""
    law = torch.arange(1, n + 1, dtype=torch.float64) ** -exponent
    certain = 0
    while True:  # what exceeds 1 is shared by those that follow
        rest = law[certain:] * (total - certain) / law[certain:].sum()
        if certain == n or rest[0] <= 1:
            return torch.cat([torch.ones(certain, dtype=torch.float64), rest])
        certain += 1
