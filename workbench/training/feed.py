"""Batches, and the place reached in them."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from workbench.dictionaries.inputs import Batch


class Feed:
    """Draw batches, and find the same place again.

    Batches with ``state_dict`` and ``load_state_dict`` say where they are. Others are taken to begin at the
    beginning each time, and are drawn and dropped up to where they were.
    """

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches: Any = batches
        self._iterator: Any = None
        self._skip = 0
        self._rng: Tensor | None = None

    def draw(self) -> Batch | None:
        """Return the next batch, or None when there is none left."""
        if self._iterator is None:
            self._iterator = iter(self._batches)
        while self._skip:
            self._skip -= 1
            if next(self._iterator, None) is None:
                return None
        if self._rng is not None:
            # Only now: batches without a position may draw on the generator while they are skipped.
            torch.set_rng_state(self._rng)
            self._rng = None
        return next(self._iterator, None)

    def state(self) -> dict[str, Any]:
        """Return the place reached, torch's random state with it."""
        position = self._batches.state_dict() if self._keeps_its_place else None
        return {"position": position, "rng": torch.get_rng_state()}

    def restore(self, state: Mapping[str, Any], drawn: int) -> None:
        """Go to where ``state`` was taken, after ``drawn`` batches."""
        self._rng = state["rng"]
        if self._keeps_its_place and state["position"] is not None:
            self._batches.load_state_dict(state["position"])
        else:
            self._skip = drawn

    @property
    def _keeps_its_place(self) -> bool:
        return hasattr(self._batches, "state_dict") and hasattr(self._batches, "load_state_dict")
