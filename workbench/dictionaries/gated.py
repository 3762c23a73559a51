"""Gated: one path decides which features are active, another how strongly."""

from typing import Any, final

import torch
from torch import Tensor, nn
from typing_extensions import Unpack, override

from workbench.dictionaries.dense import Penalised
from workbench.dictionaries.linear import Shared, positive


@final
class Gated(Penalised):
    """Let a gate choose and another path measure (Rajamanoharan et al. 2024, arXiv 2404.16014).

    With ``h = x @ W_enc.T``, the gate is ``h + b_enc`` and the magnitude ``exp(r_mag) * h + b_mag``; a code is the
    rectified magnitude where the gate is positive. Only the gate pays L1, so that magnitudes need not shrink. The
    gate has no gradient of the error, being a step, and learns from a second one: the rectified gate, as codes,
    through a frozen copy of the decoder.

    Args:
        d_in: Width of the activations read.
        n_features: How many features.
        l1: Price of a rectified gate as long as the mean input, where leaving out the whole input costs 1. To be as
            sparse as a ``ReLU`` it takes several times as much.
        warmup: Share of the training's steps, the first ones, in which the price rises linearly from zero.
        shared: As for every architecture of one product, see ``Linear``.

    >>> Gated(8, 32)(torch.ones(2, 8)).shape
    torch.Size([2, 8])
    """

    def __init__(
        self, d_in: int, n_features: int, *, l1: float = 0.3, warmup: float | int = 0.2, **shared: Unpack[Shared]
    ) -> None:
        super().__init__(d_in, n_features, warmup=warmup, **shared)
        self.l1 = positive("l1", l1)
        self.r_mag = nn.Parameter(torch.zeros(n_features))
        self.b_mag = nn.Parameter(torch.zeros(n_features))

    @property
    @override
    def options(self) -> dict[str, Any]:
        return {"l1": self.l1, "warmup": self.warmup}

    def _paths(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gate and the codes."""
        h = u @ self.W_enc.T
        gate = h + self.b_enc
        return gate, torch.where(gate > 0, torch.addcmul(self.b_mag, h, self.r_mag.exp()).relu(), 0)

    @override
    def _dense(self, u: Tensor, *, training: bool) -> Tensor:
        return self._paths(u)[1]

    @override
    def _charged(self, u: Tensor, v: Tensor, W_dec: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        gate, dense = self._paths(u)
        gate = gate.relu()
        error = v.detach() - self.b_dec.detach() - gate @ W_dec.detach()
        return dense, {
            "l1": self.risen * self.l1 * gate.sum(1).mean() / self.d_out**0.5,
            "gate": error.square().mean(),
        }

    @override
    def _fold_encoder(self) -> None:
        scale = self.scale_in.double() / self.scale_out
        centre = self.W_enc.double() @ self.centre_in.double()
        super()._fold_encoder()
        self.b_mag.copy_(self.b_mag.double() / self.scale_out - self.r_mag.double().exp() * centre * scale)
