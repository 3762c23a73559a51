"""Ours or any other object as a dictionary, and its codes as a sparse table."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from workbench.dictionaries import Codes


@runtime_checkable
class AnyDictionary(Protocol):
    """What can be described: ours, or any object that encodes and has directions."""

    W_dec: Tensor

    def encode(self, x: Tensor) -> Any:
        """Return ``Codes``, or a dense tensor [row, n_features]."""
        ...


def encoded(dictionary: AnyDictionary, x: Tensor) -> Codes:
    """Return the codes of rows ``x``, also of a dictionary that gives them dense."""
    found = dictionary.encode(x)
    if isinstance(found, Tensor):
        return Codes(found, torch.arange(found.shape[-1]).expand(found.shape), found.shape[-1])
    return found


def sparse(codes: Codes) -> csr_array:
    """Return codes [row, k] as a table [row, feature] without their empty slots."""
    rows, k = codes.values.shape
    values, indices = (of.detach().cpu().numpy().ravel() for of in (codes.values.float(), codes.indices))
    table = csr_array((values, indices, np.arange(rows + 1) * k), shape=(rows, codes.n_features), copy=True)
    table.eliminate_zeros()  # in place, hence the copy
    return table
