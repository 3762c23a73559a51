"""How much of the activations a dictionary keeps, and at what cost."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.dictionaries.dictionary import Dictionary
from workbench.dictionaries.inputs import Batch

CHUNK = 4096


@dataclass(frozen=True)
class Fidelity:
    """How much of a set of activations a dictionary keeps, and at what cost."""

    fvu: float
    """Fraction of variance unexplained, sum |y - dictionary(x)|² over sum |y - mean|², with the mean of this set: 0 is
    perfect, 1 is as good as the mean. Of several sites the mean, so that none counts for more."""

    l0: float
    """Mean number of features active on one activation."""

    dead: float
    """Share of features that were never active; of a small set, rare features are part of it."""

    by_site: tuple[float, ...]
    """``fvu`` at each of ``sites_out``."""


@torch.no_grad()
def fidelity(dictionary: Dictionary, x: Batch | Iterable[Batch]) -> Fidelity:
    """Return the fidelity of ``dictionary`` on activations, or on a finite stream of batches of them."""
    n, active = 0, 0
    origin = offsets = torch.zeros(dictionary.shape_out, dtype=torch.float64)
    squares = error = origin.sum(-1)
    fired = torch.zeros(dictionary.n_features, dtype=torch.bool)
    batches: Iterable[Any] = [x] if isinstance(x, Tensor | Mapping) else x
    for batch in batches:
        for part, y in zip(*(side.split(CHUNK) for side in dictionary.pair(batch)), strict=True):
            codes = dictionary.encode(part)
            left = y - dictionary.decode(codes) - dictionary.skip(part)
            error = error + left.double().square().sum((0, -1)).cpu()
            y = y.double().cpu()
            # Moments about a point near the mean: about zero they would drown in it where it is large.
            origin = y.mean(0) if n == 0 else origin
            offsets = offsets + (y - origin).sum(0)
            squares = squares + (y - origin).square().sum((0, -1))
            active += int((codes.values != 0).sum())
            fired |= codes.fired.cpu()
            n += len(part)
    variance = squares - offsets.square().sum(-1) / max(n, 1)
    if n < 2 or (variance <= 0).any():
        raise ValueError(
            f"fidelity needs at least 2 different activations to measure a variance, got {n} with variance "
            f"{float(variance.min()):g}."
        )
    fvu = (error / variance).flatten()
    return Fidelity(
        fvu=float(fvu.mean()),
        l0=active / n,
        dead=1 - float(fired.float().mean()),
        by_site=tuple(fvu.tolist()),
    )
