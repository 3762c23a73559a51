"""Batches, and the place reached in them."""

import json
from collections.abc import Iterable
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
        self._keeps_place = hasattr(batches, "state_dict") and hasattr(batches, "load_state_dict")
        self._iterator: Any = None
        self._skip = 0
        self._rng: Tensor | None = None

    @property
    def fingerprint(self) -> str | None:
        """Of the model that the batches come from, where they say so."""
        return getattr(self._batches, "fingerprint", None)

    def draw(self) -> Batch | None:
        """Return the next batch, or None when there is none left."""
        if self._iterator is None:
            self._iterator = iter(self._batches)
            for _ in range(self._skip):
                next(self._iterator, None)
            if self._rng is not None:  # only now: batches may draw on the generator while they are skipped
                torch.set_rng_state(self._rng)
        return next(self._iterator, None)

    def position(self) -> Any:
        """Return the place reached, or None where the batches do not say."""
        if not self._keeps_place:
            return None
        position = self._batches.state_dict()
        try:
            json.dumps(position)
        except (TypeError, ValueError) as error:
            raise TypeError(f"The state_dict of the batches must be what JSON can hold, but: {error}.") from None
        return position

    def restore(self, position: Any, drawn: int, rng: Tensor) -> None:
        """Go to ``position``, after ``drawn`` batches, and to torch's random state there."""
        self._rng = rng
        if self._keeps_place and position is not None:
            self._batches.load_state_dict(position)
        else:
            self._skip = drawn
