"""ReLU: the sparse autoencoder with an L1 penalty."""

from typing import Any, final

from torch import Tensor
from typing_extensions import Unpack, override

from workbench.dictionaries.dense import Penalised
from workbench.dictionaries.linear import Shared, positive


@final
class ReLU(Penalised):
    """Rectify, and pay for the length of what is added (Bricken et al. 2023; Cunningham et al. 2023, arXiv 2309.08600).

    The loss is ``|e|² + l1 · Σᵢ fᵢ |W_dec[i]|``, the length-weighted form of Conerly et al. (2024), with the input
    in units of its own mean length: there ``l1`` means the same at every width. Since rows have norm one, no code can
    escape the price. It also shrinks the codes it keeps, which is what Gated, JumpReLU and TopK are made against.

    Args:
        d_in: Width of the activations read.
        n_features: How many features.
        l1: Price of a code as long as the mean input, where leaving out the whole input costs 1. Where some hundred
            features are active, each is short, and published runs take 0.01 to 0.06; where three are, 0.1 to 0.3.
        warmup: Share of the training's steps, the first ones, in which the price rises linearly from zero.
        shared: As for every architecture of one product, see ``Linear``.

    >>> import torch
    >>> ReLU(8, 32)(torch.ones(2, 8)).shape
    torch.Size([2, 8])
    """

    def __init__(
        self, d_in: int, n_features: int, *, l1: float = 0.1, warmup: float | int = 0.2, **shared: Unpack[Shared]
    ) -> None:
        super().__init__(d_in, n_features, warmup=warmup, **shared)
        self.l1 = positive("l1", l1)

    @property
    @override
    def options(self) -> dict[str, Any]:
        return {"l1": self.l1, "warmup": self.warmup}

    @override
    def _dense(self, u: Tensor, *, training: bool) -> Tensor:
        return (u @ self.W_enc.T + self.b_enc).relu()

    @override
    def _charged(self, u: Tensor, v: Tensor, W_dec: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        dense = self._dense(u, training=True)
        return dense, {"l1": self.risen * self.l1 * dense.sum(1).mean() / self.d_out**0.5}
