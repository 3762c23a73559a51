"""Sparse codes: which features are active on each activation, and how strongly."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Codes:
    """The active features of a batch, ``k`` slots to each activation.

    An activation with fewer than ``k`` active features fills its remaining slots with value 0; the index of
    such a slot is valid but means nothing. A code value is a length in the unit of the activations: the
    feature adds ``value * W_dec[index]`` to the reconstruction.

    >>> codes = Codes(torch.tensor([[2.0, 0.0]]), torch.tensor([[1, 0]]), n_features=3)
    >>> codes.dense()
    tensor([[0., 2., 0.]])
    >>> codes.l0.item()
    1.0
    """

    values: Float[Tensor, "*batch k"]
    """How strongly each active feature fires; 0 in an empty slot."""

    indices: Int[Tensor, "*batch k"]
    """Which feature each slot holds, in no particular order."""

    n_features: int
    """How many features the dictionary has."""

    def dense(self) -> Float[Tensor, "*batch n_features"]:
        """Return the codes as one value per feature, zero where a feature is silent."""
        zeros = self.values.new_zeros(*self.values.shape[:-1], self.n_features)
        # Added, not written: an empty slot may carry the index of an active feature.
        return zeros.scatter_add(-1, self.indices, self.values)

    @property
    def l0(self) -> Float[Tensor, ""]:
        """The mean number of active features, a scalar tensor so that reading it is the caller's choice."""
        return (self.values != 0).sum(-1).float().mean()

    @property
    def fired(self) -> Bool[Tensor, " n_features"]:
        """Which features are active anywhere in the batch."""
        if self.indices.ndim == 2 and self.indices.stride(0) == 0 < len(self.indices):
            # The same slots for every activation, as dense codes have: one mark for each slot is enough.
            used = (self.values != 0).any(0)
            return torch.zeros(self.n_features, device=used.device).index_add_(0, self.indices[0], used.float()) > 0
        slots = torch.where(self.values != 0, self.indices, self.n_features).flatten()
        marks = torch.zeros(self.n_features + 1, dtype=torch.bool, device=slots.device)
        return marks.scatter_(0, slots, True)[:-1]
