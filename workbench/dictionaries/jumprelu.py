"""JumpReLU: a learnt threshold for each feature, and a target for how many are active."""

from typing import Any, final

import torch
from torch import Tensor, nn
from typing_extensions import Unpack, override

from workbench.dictionaries.dense import Penalised
from workbench.dictionaries.gradients import jump
from workbench.dictionaries.inputs import Batch
from workbench.dictionaries.linear import Shared, positive


@final
class JumpReLU(Penalised):
    """Keep a pre-activation where it exceeds its feature's threshold (Rajamanoharan et al. 2024, arXiv 2407.14435).

    The loss is the squared error plus ``weight · (L0 / l0 - 1)²``, the paper's variant that aims at a number of
    active features. Thresholds have no gradient of their own but that of a rectangle kernel, see
    ``gradients.jump``. They are kept as they are, not as logarithms, which Adam can hardly move, and start where
    the sample has ``l0`` active features on average: a start near zero, as in the paper, has half of all features
    active and takes as many steps as a threshold has learning rates.

    Args:
        d_in: Width of the activations read.
        n_features: How many features.
        l0: How many features should be active on an activation, on average. None is for one that is only
            read with: files of other packages do not tell it.
        weight: Price of being twice as many, where leaving out the whole input costs 1.
        bandwidth: Width of the kernel in training units, in which coordinates have mean square one. The paper's
            0.001 is in units of the mean length: 0.05 at a width of 2304.
        warmup: Share of the training's steps, the first ones, in which the price rises linearly from zero.
        shared: As for every architecture of one product, see ``Linear``.

    >>> JumpReLU(8, 32, l0=4)(torch.ones(2, 8)).shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        d_in: int,
        n_features: int,
        *,
        l0: float | int | None,
        weight: float = 1.0,
        bandwidth: float = 0.05,
        warmup: float | int = 0.2,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(d_in, n_features, warmup=warmup, **shared)
        if l0 is not None and not 0 < l0 <= n_features:
            raise ValueError(f"l0 must lie above 0 and at most at {n_features} (n_features), got {l0}.")
        self.l0, self.weight, self.bandwidth = l0, positive("weight", weight), positive("bandwidth", bandwidth)
        self.revived = max(1, round(l0 or 0))
        self.threshold = nn.Parameter(torch.zeros(n_features))
        """[n_features], in the unit of the codes; never negative."""

    @property
    @override
    def options(self) -> dict[str, Any]:
        return {"l0": self.l0, "weight": self.weight, "bandwidth": self.bandwidth, "warmup": self.warmup}

    @override
    @torch.no_grad()
    def initialise(self, sample: Batch) -> None:
        super().initialise(sample)
        if self.l0 is not None:
            self.threshold.fill_(self.cutoff(sample, self.l0))

    @override
    def prepare(self, steps: int) -> None:
        super().prepare(steps)
        if self.l0 is None:
            raise ValueError("This JumpReLU has no l0 to aim at; set its l0 to how many features should be active.")

    def _jump(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return jump(u @ self.W_enc.T + self.b_enc, self.threshold, self.bandwidth)

    @override
    def _dense(self, u: Tensor, *, training: bool) -> Tensor:
        return self._jump(u)[0]

    @override
    @torch.no_grad()
    def after_step(self, step: int) -> None:
        super().after_step(step)
        self.threshold.clamp_(min=0)

    @override
    def _fold_encoder(self) -> None:
        super()._fold_encoder()
        self.threshold.copy_(self.threshold.double() / self.scale_out)

    @override
    def _charged(self, u: Tensor, v: Tensor, W_dec: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        assert self.l0 is not None
        dense, l0 = self._jump(u)
        return dense, {"l0": self.risen * self.weight * (l0 / self.l0 - 1).square()}
