"""TopK: keep the k strongest features, and revive the dead ones."""

from typing import Any, final

from torch import Tensor
from typing_extensions import Unpack, override

from workbench.dictionaries import sparse
from workbench.dictionaries.linear import Linear, Shared, places


@final
class TopK(Linear):
    """Keep the ``k`` largest pre-activations of each input, where positive (Gao et al. 2024, arXiv 2406.04093).

    The loss is the squared error plus AuxK: the dead features, ``k`` at a time, rebuild what the living ones
    left over. The paper takes half the width at a time; but a feature returns to life by winning one of ``k``
    places, and where many share a small residual each learns codes too small to win (measured on a small language
    model: a third as many stay dead).

    Args:
        d_in: Width of the activations read.
        n_features: How many features.
        k: How many are active on an activation, at most; without ``relu`` exactly.
        relu: Whether negative pre-activations count as zero. False is the k-sparse autoencoder, whose codes may
            be negative (Makhzani and Frey 2013, arXiv 1312.5663; so used by Kim et al. 2024, arXiv 2411.16725).
        shared: As for every architecture of one product, see ``Linear``.

    >>> import torch
    >>> TopK(8, 32, k=4)(torch.ones(2, 8)).shape
    torch.Size([2, 8])
    """

    def __init__(self, d_in: int, n_features: int, *, k: int, relu: bool = True, **shared: Unpack[Shared]) -> None:
        super().__init__(d_in, n_features, **shared)
        self.k = self.revived = places(k, n_features)
        self.relu = relu

    @property
    @override
    def options(self) -> dict[str, Any]:
        return {"k": self.k} if self.relu else {"k": self.k, "relu": False}

    @override
    def _activate(self, u: Tensor, *, training: bool) -> tuple[Tensor, Tensor]:
        z, indices = sparse.strongest(u, self.W_enc, self.b_enc, self.k)
        values = sparse.encode(u, self.W_enc, self.b_enc, z, indices)
        return values.relu() if self.relu else values, indices
