"""Endless shuffled batches with a bounded buffer and a position that can be restored.

An epoch is one pass over all rows in a random order. Rows in memory are permuted freely. Rows on disk are read as
blocks of neighbours in random order, as many as fit a buffer, and permuted within the buffer. Everything random
follows from the seed, the epoch and the number of the buffer, so a position is one number.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.activations.shards import FileShard, Shard, gather
from workbench.models import Site

BLOCK_ROWS = 256


class Batches:
    """An endless iterator of batches, ``{site: [batch, d]}``; made by ``ActivationStore.batches``."""

    def __init__(
        self,
        shards: Sequence[Shard],
        sites: Sequence[Site],
        size: int,
        seed: int,
        buffer_rows: int,
        fingerprint: str,
    ) -> None:
        self.fingerprint = fingerprint
        """Of the model that the activations came from; ``train`` writes it into the dictionary."""
        self._shards, self._sites, self._size, self._seed = list(shards), tuple(sites), size, seed
        self._rows = sum(shard.rows for shard in shards)
        self._on_disk = isinstance(shards[0], FileShard)
        self._buffer_rows = buffer_rows
        self._position = 0
        self._epoch = -1
        self._buffers: list[Tensor] = []
        self._ends = torch.zeros(0, dtype=torch.long)
        self._loaded: tuple[int, int] | None = None
        self._held: dict[Site, Tensor] = {}
        self._order = torch.zeros(0, dtype=torch.long)

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> dict[Site, Float[Tensor, "batch _d"]]:
        parts: list[dict[Site, Tensor]] = []
        missing = self._size
        while missing:
            parts.append(self._take(missing))
            taken = len(parts[-1][self._sites[0]])
            missing -= taken
            self._position += taken
        if len(parts) == 1:
            return parts[0]
        return {site: torch.cat([part[site] for part in parts]) for site in self._sites}

    def state_dict(self) -> dict[str, Any]:
        """Return the position, as plain JSON values."""
        return {"position": self._position, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position that ``state_dict`` gave, on the same store with the same arguments."""
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise ValueError(
                    f"This position is of batches with {name} {state.get(name)}, these have {value}; "
                    "make the batches from the same store with the same arguments."
                )
        self._position = int(state["position"])

    def _identity(self) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint,
            "rows": self._rows,
            "sites": [str(site) for site in self._sites],
            "size": self._size,
            "seed": self._seed,
            "buffer_rows": self._buffer_rows if self._on_disk else None,
        }

    def _take(self, most: int) -> dict[Site, Tensor]:
        """Return up to ``most`` rows from the buffer in which the position lies."""
        epoch, offset = divmod(self._position, self._rows)
        if epoch != self._epoch:
            self._plan(epoch)
        number = int(torch.searchsorted(self._ends, offset, right=True))
        start = int(self._ends[number - 1]) if number else 0
        if self._loaded != (epoch, number):
            self._load(epoch, number)
        chosen = self._order[offset - start : offset - start + most]
        if self._on_disk:
            return {site: rows[chosen] for site, rows in self._held.items()}
        return {site: gather(self._shards, str(site), chosen) for site in self._sites}

    def _plan(self, epoch: int) -> None:
        """Divide the epoch's rows into buffers; a buffer is a list of blocks, as [first row, rows] pairs."""
        if self._on_disk:
            blocks, first = [], 0
            for shard in self._shards:
                starts = torch.arange(first, first + shard.rows, BLOCK_ROWS)
                first += shard.rows
                blocks.append(torch.stack([starts, (first - starts).clamp(max=BLOCK_ROWS)], dim=1))
            every = torch.cat(blocks)
            every = every[torch.randperm(len(every), generator=self._generator(epoch))]
            per_buffer = max(1, self._buffer_rows // BLOCK_ROWS)
            self._buffers = list(every.split(per_buffer))
        else:
            self._buffers = [torch.tensor([[0, self._rows]])]
        self._ends = torch.tensor([int(buffer[:, 1].sum()) for buffer in self._buffers]).cumsum(0)
        self._epoch = epoch

    def _load(self, epoch: int, number: int) -> None:
        blocks = self._buffers[number]
        rows = int(blocks[:, 1].sum())
        if self._on_disk:
            self._held = {}  # before the next, so that two buffers are never held at once
            # In the order of the files, which reads them forwards; the rows are permuted below anyway.
            blocks = blocks[blocks[:, 0].argsort()]
            index = torch.cat([torch.arange(first, first + count) for first, count in blocks.tolist()])
            self._held = {site: gather(self._shards, str(site), index) for site in self._sites}
        self._order = torch.randperm(rows, generator=self._generator(epoch, number))
        self._loaded = epoch, number

    def _generator(self, *path: int) -> torch.Generator:
        # A stream of its own for every epoch and buffer; hashed, since torch looks at 32 bits of a seed only.
        digest = hashlib.sha256(repr((self._seed, *path)).encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))
