"""Matryoshka: every prefix of the features is a dictionary."""

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor
from typing_extensions import Unpack, override

from workbench.dictionaries import sparse
from workbench.dictionaries.linear import Shared
from workbench.dictionaries.mutual import Mutual


@final
class Matryoshka(Mutual):
    """Rebuild the input from each of several prefixes of the features (Bussmann et al. 2025, arXiv 2503.17547).

    After Matryoshka representations (Kusupati et al. 2022, arXiv 2205.13147). The features are selected once, as
    BatchTopK does, and the reconstruction loss is the mean over the prefixes, of which the last is all features: the
    first must be general, since a small dictionary of them has to do alone. AuxK and FVU look at the whole.

    Args:
        d_in: Width of the activations read.
        n_features: How many features.
        k: How many are active on an activation, on average, over all prefixes.
        prefixes: How many features each prefix has, rising; all features are added to them. By default the
            sixteenth, the eighth, the quarter and the half.
        shared: As for every architecture of one product, see ``Linear``.

    >>> Matryoshka(8, 32, k=4).prefixes
    (2, 4, 8, 16, 32)
    """

    def __init__(
        self, d_in: int, n_features: int, *, k: int, prefixes: Sequence[int] | None = None, **shared: Unpack[Shared]
    ) -> None:
        if prefixes is None:
            prefixes = sorted({n_features // share for share in (16, 8, 4, 2)} - {0, n_features})
        ends = tuple(dict.fromkeys((*prefixes, n_features)))
        if sorted(ends) != list(ends) or ends[0] < 1:
            raise ValueError(
                f"prefixes must rise from at least 1 to at most {n_features} (n_features), got {[*prefixes]}."
            )
        super().__init__(d_in, n_features, k=k, **shared)
        self.prefixes = ends

    @property
    @override
    def options(self) -> dict[str, Any]:
        return {"k": self.k, "prefixes": list(self.prefixes)}

    @override
    def _fit(self, u: Tensor, v: Tensor, W_dec: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        values, indices = self._activate(u, training=True)
        residual, errors = v - self.b_dec, []
        for start, end in zip((0, *self.prefixes), self.prefixes, strict=False):
            within = (indices >= start) & (indices < end)
            residual = residual - sparse.decode(values * within, indices, W_dec)
            errors.append(residual.square().mean())
        return values, indices, residual, {"reconstruction": torch.stack(errors).mean()}
