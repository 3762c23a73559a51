"""The whole state of a training as named tensors and JSON."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

TENSOR = "$tensor"
"""The key that marks the place of a tensor in JSON."""


def pack(state: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return ``state`` as JSON holds it; its tensors go to ``tensors`` under names that begin with ``name``."""
    if isinstance(state, Tensor):
        tensors[name] = state
        return {TENSOR: name}
    if isinstance(state, Mapping) and all(isinstance(key, str) for key in state):
        return {key: pack(value, f"{name}.{key}", tensors) for key, value in state.items()}
    if isinstance(state, list):
        return [pack(value, f"{name}.{i}", tensors) for i, value in enumerate(state)]
    if state is None or isinstance(state, bool | int | float | str):
        return state
    raise TypeError(
        f"{name} holds a {type(state).__name__}; a state that can be saved is made of dicts with string keys, "
        "lists, tensors, numbers, strings, booleans and None."
    )


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return what ``pack`` was given."""
    if isinstance(packed, dict):
        if set(packed) == {TENSOR}:
            return tensors[packed[TENSOR]]
        return {key: unpack(value, tensors) for key, value in packed.items()}
    return [unpack(value, tensors) for value in packed] if isinstance(packed, list) else packed
