"""What architectures share whose codes are not counted in advance: a dense product in training.

Which features are active is known only when all have been computed, and asking how many there are would wait for
the device. So training keeps one slot for each feature; ``encode`` afterwards gives as many as the fullest row needs.
"""

from abc import ABC, abstractmethod
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from workbench.dictionaries import sparse
from workbench.dictionaries.linear import Linear


class Dense(Linear, ABC):
    """An architecture that says for each feature by itself whether and how strongly it is active."""

    @abstractmethod
    def _dense(self, u: Tensor, *, training: bool) -> Tensor:
        """Return the codes [batch, n_features] of ``u`` [batch, d_in], all in training units."""

    def _slots(self, dense: Tensor) -> Tensor:
        return torch.arange(self.n_features, device=dense.device).expand(dense.shape)

    @override
    def _activate(self, u: Tensor, *, training: bool) -> tuple[Tensor, Tensor]:
        if training:
            dense = self._dense(u, training=True)
            return dense, self._slots(dense)
        return sparse.compressed(partial(self._dense, training=False), u, self.n_features)

    @override
    def _fit(self, u: Tensor, v: Tensor, W_dec: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        dense, penalties = self._charged(u, v, W_dec)
        residual = v - self.b_dec - dense @ W_dec
        return dense, self._slots(dense), residual, {"reconstruction": residual.square().mean(), **penalties}

    def _charged(self, u: Tensor, v: Tensor, W_dec: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the dense codes of ``u`` in training, and what is charged for them."""
        return self._dense(u, training=True), {}


class Penalised(Dense, ABC):
    """A dense architecture whose sparsity is a price, which rises linearly from zero at the beginning of a training."""

    risen: Float[Tensor, ""]

    def __init__(self, d_in: int, n_features: int, *, warmup: float | int, **shared: Any) -> None:
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup is a share of the training's steps, at least 0 and below 1, got {warmup}.")
        super().__init__(d_in, n_features, **shared)
        self.warmup = warmup
        self._rise = 1.0  # in steps
        self.register_buffer("risen", torch.ones(()))

    @override
    def prepare(self, steps: int) -> None:
        super().prepare(steps)
        self._rise = max(1.0, self.warmup * steps)
        self.risen.fill_(1 / self._rise)

    @override
    @torch.no_grad()
    def after_step(self, step: int) -> None:
        super().after_step(step)
        self.risen.fill_(min(1.0, (step + 2) / self._rise))
