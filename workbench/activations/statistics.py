"""Mean, norm and outliers of a site, from passes that hold a few rows at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.activations.shards import Shard

CHUNK_ROWS = 16_384
# Bins of the histogram of log norms: 2^-64 to 2^64, each 0.07 % wide.
BINS, LOW, HIGH = 2**17, -64.0, 64.0


@dataclass(frozen=True)
class Statistics:
    """How the activations of one site are distributed."""

    rows: int
    """How many there are."""

    mean: Float[Tensor, " d"]
    """Their mean."""

    rms_norm: float
    """Root of the mean squared norm."""

    median_norm: float
    """Median norm, to a relative 0.1 %."""

    outliers: Int[Tensor, " outlier"]
    """Rows whose norm is more than ``multiple`` times the median."""

    multiple: float
    """What counts as an outlier."""


def measure(shards: Sequence[Shard], name: str, multiple: float) -> Statistics:
    """Return the statistics of one column."""
    total: Tensor | None = None
    squares, rows = 0.0, 0
    histogram = torch.zeros(BINS, dtype=torch.long)
    for _, chunk in _chunks(shards, name):
        norms = chunk.norm(dim=1)
        total = chunk.sum(0) if total is None else total + chunk.sum(0)
        squares += float(norms.square().sum())
        rows += len(chunk)
        bins = ((norms.log2().clamp(LOW, HIGH) - LOW) / (HIGH - LOW) * (BINS - 1)).long()
        histogram += torch.bincount(bins, minlength=BINS)
    assert total is not None
    middle = int(torch.searchsorted(histogram.cumsum(0), (rows + 1) // 2))
    median = 2.0 ** (LOW + (middle + 0.5) / (BINS - 1) * (HIGH - LOW))
    far = [first + (chunk.norm(dim=1) > multiple * median).nonzero()[:, 0] for first, chunk in _chunks(shards, name)]
    return Statistics(rows, (total / rows).float(), (squares / rows) ** 0.5, median, torch.cat(far), multiple)


def _chunks(shards: Sequence[Shard], name: str) -> Iterator[tuple[int, Tensor]]:
    """Yield rows in double precision, with the number of the first of them."""
    first = 0
    for shard in shards:
        for start in range(0, shard.rows, CHUNK_ROWS):
            yield first + start, shard.read(name, slice(start, start + CHUNK_ROWS)).double()
        first += shard.rows
