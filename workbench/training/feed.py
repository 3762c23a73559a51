"""Batches, and the place reached in them."""

import json
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from workbench.dictionaries.inputs import Batch

Place = tuple[Any, dict[str, Tensor]]

ALL = "all"


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
        self._ahead: deque[tuple[Batch, Place]] = deque()
        """Batches taken and not yet drawn, each with the place behind it."""
        self._reached: Place | None = None
        """The place behind the last drawn, where others have been taken since."""

    @property
    def fingerprint(self) -> str | None:
        """Of the model that the batches come from, where they say so."""
        return getattr(self._batches, "fingerprint", None)

    def sample(self, rows: int) -> Batch | None:
        """Return the first ``rows`` activations to come, in whole batches, or all there are; they stay to be drawn."""
        taken: list[dict[Any, Tensor]] = []
        count = 0
        while count < rows and (batch := self._take()) is not None:
            self._ahead.append((batch, self._place()))
            sides = self._sides(batch)
            length = max((len(side) for side in sides.values()), default=0)
            form = {key: side.shape[1:] for key, side in sides.items()}
            if not length or (taken and form != {key: side.shape[1:] for key, side in taken[0].items()}):
                break  # its own step will say what is wrong with it
            taken.append(sides)
            count += length
        if not taken:
            return None
        joined = {key: torch.cat([sides[key] for sides in taken]) for key in taken[0]}
        return joined.get(ALL, joined)

    def _sides(self, batch: Any) -> dict[Any, Tensor]:
        """Return the tensors of a batch that are asked for, by site; of one that is a tensor, it under ``ALL``."""
        if isinstance(batch, Tensor):
            return {ALL: batch}
        return {site: batch[site] for site in self._sites if site in batch} if isinstance(batch, Mapping) else {}

    def draw(self) -> Batch | None:
        """Return the next batch, or None when there is none left; of a mapping, only the sites that are needed."""
        if self._ahead:
            batch, self._reached = self._ahead.popleft()
            return batch
        self._reached = None
        return self._take()

    def _take(self) -> Batch | None:
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

    @property
    def place(self) -> Place:
        """What it takes to go on behind the batches drawn.

        Where the batches say they are, or None if they do not say, and torch's generators, which they may draw on.
        """
        return self._reached or self._place()

    def _place(self) -> Place:
        position = self._batches.state_dict() if self._keeps_place else None
        try:
            json.dumps(position)
        except (TypeError, ValueError) as error:
            raise TypeError(f"The state_dict of the batches must be what JSON can hold, but: {error}.") from None
        cuda = {"rng.cuda": torch.cuda.get_rng_state(self._device)} if self._device.type == "cuda" else {}
        return position, {"rng": torch.get_rng_state(), **cuda}

    def restore(self, position: Any, drawn: int, random: dict[str, Tensor]) -> None:
        """Go to ``position``, after ``drawn`` batches, and to torch's generators there."""
        self._random = random
        if self._keeps_place and position is not None:
            self._batches.load_state_dict(position)
        else:
            self._skip = drawn
