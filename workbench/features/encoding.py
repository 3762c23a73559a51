"""Ours or any other object as a dictionary."""

from typing import Any, Protocol, runtime_checkable

import torch
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
