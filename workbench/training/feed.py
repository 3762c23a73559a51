"""Batches, and the place reached in them."""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from workbench.dictionaries.inputs import Batch


class Feed:
    """Draw batches onto a device, and find the same place again.

    Batches with ``state_dict`` and ``load_state_dict`` say where they are. Others are taken to begin at the
    beginning each time, and are drawn and dropped up to where they were.
    """

    def __init__(self, batches: Iterable[Batch], sites: Collection[Any], device: torch.device) -> None:
        if isinstance(batches, Tensor | Mapping):
            raise TypeError("train takes batches, one after another, and this is one; give itertools.repeat(batch).")
        if not hasattr(batches, "__iter__"):
            raise TypeError(
                f"train takes batches, one after another, got {type(batches).__name__}; of an ActivationStore give "
                "store.batches(sites, size, seed)."
            )
        self._batches: Any = batches
        self._sites, self._device = frozenset(sites), device
        self._keeps_place = hasattr(batches, "state_dict") and hasattr(batches, "load_state_dict")
        self._iterator: Any = None
        self._skip = 0
        self._random: dict[str, Tensor] = {}

    @property
    def fingerprint(self) -> str | None:
        """Of the model that the batches come from, where they say so."""
        return getattr(self._batches, "fingerprint", None)

    def draw(self) -> Batch | None:
        """Return the next batch, or None when there is none left; of a mapping, only the sites that are needed."""
        if self._iterator is None:
            self._iterator = iter(self._batches)
            for _ in range(self._skip):
                next(self._iterator, None)
            # Only now: batches may draw on the generators while they are skipped.
            if "rng" in self._random:
                torch.set_rng_state(self._random["rng"])
            if "rng.cuda" in self._random:
                torch.cuda.set_rng_state(self._random["rng.cuda"], self._device)
        batch = next(self._iterator, None)
        if batch is None or self._device.type == "cpu":
            return batch
        if isinstance(batch, Tensor):
            return self._moved(batch)
        if not self._sites or not self._sites <= batch.keys():
            return batch  # the dictionary that wants for something says so
        return {site: self._moved(batch[site]) for site in self._sites}  # once for all dictionaries

    def _moved(self, acts: Tensor) -> Tensor:
        """Return ``acts`` on the device, on their way while this thread goes on."""
        pinned = acts.pin_memory() if acts.device.type == "cpu" and self._device.type == "cuda" else acts
        return pinned.to(self._device, non_blocking=True)

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

    def random(self) -> dict[str, Tensor]:
        """Return the states of torch's generators, which batches may draw on."""
        cuda = {"rng.cuda": torch.cuda.get_rng_state(self._device)} if self._device.type == "cuda" else {}
        return {"rng": torch.get_rng_state(), **cuda}

    def restore(self, position: Any, drawn: int, random: dict[str, Tensor]) -> None:
        """Go to ``position``, after ``drawn`` batches, and to torch's generators there."""
        self._random = random
        if self._keeps_place and position is not None:
            self._batches.load_state_dict(position)
        else:
            self._skip = drawn
