"""Which features stand for a label together, and whether those of its kinds have taken part of it over."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.dictionaries import Codes

GAIN = 0.03
"""What one more feature must add to the F1 of those that stand for a label (Chanin et al. 2024)."""

AT_MOST = 10
"""Features that stand for one label."""

POOL = 64
"""The features of best F1 by themselves, among which those that stand for a label together are looked for."""

ALONG, CARRIED = 0.025, 0.4
"""Cosine with the label's direction from which a feature may carry it, and the share of it that it then carries."""


def standing_for(
    codes: Codes, label: Bool[Tensor, " row"], *, kinds: Sequence[Bool[Tensor, " row"]] = ()
) -> Int[Tensor, " n"]:
    """Return the features whose union of firings is the label as nearly as can be, the best first.

    Each is the one that raises F1 the most beside those before it, until none adds 0.03: one, where the label is not
    split. Of a label without rows, or with which nothing is active, there are none.

    Args:
        codes: Of the rows.
        label: Where the label holds.
        kinds: Where each of its kinds holds. A feature that fits one of them better than the label is that kind's.
    """
    active = codes.values != 0
    row = torch.arange(len(label), device=label.device)[:, None].expand_as(active)[active]
    of = codes.indices[active]
    fired = torch.bincount(of, minlength=codes.n_features).double()

    def alone(label: Tensor) -> Tensor:
        hits = torch.bincount(of[label[row]], minlength=codes.n_features).double()
        return 2 * hits / (fired + label.sum()).clamp_min(1)

    f1 = alone(label)
    for kind in kinds:
        f1 = torch.where(alone(kind) > f1, 0.0, f1)
    holds = float(label.sum())
    pool = f1.topk(min(POOL, codes.n_features)).indices
    pool = pool[f1[pool] > 0]
    at = torch.full((codes.n_features,), -1, device=label.device)
    at[pool] = torch.arange(len(pool), device=label.device)
    known = at[of] >= 0
    fires = torch.zeros(len(pool), len(label), device=label.device)
    fires[at[of][known], row[known]] = 1
    # Rows that the chosen do not fire on yet: where the label holds, and all.
    left = torch.stack([label.float(), torch.ones_like(label, dtype=torch.float)], 1)
    chosen: list[int] = []
    found = best = 0.0
    while len(chosen) < min(AT_MOST, len(pool)):
        new = (fires @ left).double()
        f1 = 2 * (found + new[:, 0]) / (len(label) - left[:, 1].sum() + new[:, 1] + holds).clamp_min(1)
        i = int(f1.argmax())
        if float(f1[i]) < best + GAIN:
            break
        best, found = float(f1[i]), found + float(new[i, 0])
        left *= 1 - fires[i, :, None]
        chosen.append(i)
    return pool[chosen]


@dataclass(frozen=True)
class Absorbed:
    """What becomes of a label where one of its kinds holds."""

    missed: float
    """Share of the rows on which no feature that stands for the label is active."""

    rate: float
    """Share of the rows on which another feature then carries the label's direction instead: absorption."""

    rows: int
    """How many rows there are."""


def absorption(
    codes: Codes,
    x: Float[Tensor, "row d"],
    W_dec: Float[Tensor, "n_features d"],
    label: Bool[Tensor, " row"],
    kinds: Sequence[Bool[Tensor, " row"]],
    features: Int[Tensor, " n"],
) -> list[Absorbed]:
    """Return for each of ``kinds`` how often a feature of its own has taken over what the label is known by.

    Feature absorption (Chanin et al. 2024, arXiv 2409.14507), by labels in the place of spelling. The direction of the
    label is the difference of the class means. A row is absorbed where none of ``features`` is active, the activation
    lies on the label's side of the other rows' mean, and the feature that writes most along the direction, with a
    cosine of 0.025 or more, writes 0.4 of what the activation has of it.

    Args:
        codes: Of the rows.
        x: The activations that the codes rebuild.
        W_dec: The directions, of any length.
        label: Where the label holds.
        kinds: Where each of its kinds holds; the label holds there too.
        features: What stands for the label, as ``standing_for`` returns it.
    """
    without = x[~label].mean(0)
    along = F.normalize(x[label].mean(0) - without, dim=0)
    silent = ~(torch.isin(codes.indices, features) & (codes.values != 0)).any(1)
    cosine = (F.normalize(W_dec, dim=1) @ along)[codes.indices]
    written = codes.values * (W_dec @ along)[codes.indices]
    most = written.masked_fill((cosine < ALONG) | torch.isin(codes.indices, features), 0).amax(1)
    there = (x - without) @ along
    carried = silent & (there > 0) & (most >= CARRIED * there)
    return [
        Absorbed(float(silent[kind].float().mean()), float(carried[kind].float().mean()), int(kind.sum()))
        for kind in kinds
    ]
