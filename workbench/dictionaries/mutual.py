"""Selection in the batch as a whole: more features for an activation that needs more, k on average.

A batch chooses its own features only in training. Alone, an activation keeps what exceeds one threshold for all,
which training calibrates on the way.
"""

from abc import ABC
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Unpack, override

from workbench.dictionaries import sparse
from workbench.dictionaries.inputs import Batch
from workbench.dictionaries.linear import Linear, Shared, follow, places


class Mutual(Linear, ABC):
    """Of a batch of B activations keep the ``k * B`` largest pre-activations, where positive.

    The threshold starts at the quantile of the sample, and then follows training by stochastic approximation
    (Robbins and Monro 1951): after each step it rises or falls by as much as it would have let through too many or
    too few of that batch. It comes to rest where ``k`` features exceed it on average. The mean over batches of the
    smallest code kept, which other trainers take, does not: the count is not linear in the threshold, and on the
    way the mean lags behind.
    """

    threshold: Float[Tensor, ""]
    exceeding: Tensor
    """How many features of an activation exceeded the threshold in the last batch, on average."""

    def __init__(self, d_in: int, n_features: int, *, k: int, **shared: Unpack[Shared]) -> None:
        super().__init__(d_in, n_features, **shared)
        self.k = self.revived = places(k, n_features)
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("exceeding", torch.full((), float(k)), persistent=False)

    @property
    @override
    def options(self) -> dict[str, Any]:
        return {"k": self.k}

    @override
    @torch.no_grad()
    def initialise(self, sample: Batch) -> None:
        super().initialise(sample)
        self.threshold.copy_(self.cutoff(sample, self.k))

    def _over(self, u: Tensor) -> Tensor:
        W_enc, b_enc = self.encoder
        z = u @ W_enc.T + b_enc
        return torch.where(z > self.threshold, z, 0)

    @override
    def _activate(self, u: Tensor, *, training: bool) -> tuple[Tensor, Tensor]:
        if not training:
            return sparse.compressed(self._over, u, self.n_features)
        z, indices, kept = sparse.strongest_of_all(u, *self.encoder, self.k * len(u))
        self.exceeding = (z > self.threshold).sum(1).to(z.dtype).mean()
        return sparse.encode(u, *self.encoder, z, indices).relu() * kept, indices

    @override
    @torch.no_grad()
    def after_step(self, step: int) -> None:
        super().after_step(step)
        follow(self.threshold, self.exceeding / self.k)

    @override
    def _fold_encoder(self) -> None:
        super()._fold_encoder()
        self.threshold.copy_(self.threshold.double() / self.unit)
