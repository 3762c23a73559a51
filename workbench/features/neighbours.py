"""Which features are near which: by direction, and by the activations they share."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from workbench.features.keep import Best

NEAR = 8
"""Neighbours of each kind that are named for each feature."""

PART = 1024


def nearest(directions: Float[Tensor, "n_features d"]) -> dict[str, Tensor]:
    """Return for each feature those of most similar direction, and the cosines."""
    unit = F.normalize(directions, dim=1)
    found = []
    for part in torch.arange(len(unit)).split(PART):
        cosines = unit[part] @ unit.T
        cosines[torch.arange(len(part)), part] = -2  # itself
        found.append(cosines.topk(min(NEAR, len(unit) - 1), 1))
    return {
        "near": torch.cat([one.indices for one in found]).int(),
        "near_cosines": torch.cat([one.values for one in found]),
    }


def beside(
    sample: Best, count: Int[Tensor, " n_features"], totals: Float[Tensor, "2 n_features"], rows: int
) -> dict[str, Tensor]:
    """Return for each feature those that are active with it, and those whose activations correlate with its own.

    Estimates from the sampled activations of each feature: how often another is active there is the conditional
    probability, which with the exact frequencies of both gives the correlation of being active (phi); the mean product
    there gives Pearson's. A pair is looked for from the side of each of its features, so that M² pairs never are.
    """
    p, mean = count / rows, totals[0] / rows
    deviation = (totals[1] / rows - mean**2).clamp_min(0).sqrt()
    n = len(count)
    drawn = torch.isfinite(sample.scores).sum(1)
    kinds: dict[str, list[Tensor]] = {name: [] for name in ("with", "phi", "like", "pearson")}
    for part in torch.arange(n).split(PART):
        others, theirs = sample.of["company"][part].long(), sample.of["company_values"][part].double()
        real = (theirs > 0) & (others != part[:, None, None]) & torch.isfinite(sample.scores[part])[..., None]
        own = sample.of["value"][part].double()[..., None].expand_as(theirs)
        feature = torch.arange(len(part))[:, None, None].expand_as(others)
        pairs, which = (feature[real] * n + others[real]).unique(return_inverse=True)
        times = torch.bincount(which, minlength=len(pairs)).double()
        product = torch.zeros(len(pairs), dtype=torch.double).index_add_(0, which, (own * theirs)[real])
        i, j = part[pairs // n], pairs % n
        given = times / drawn[i]
        phi = p[i] * (given - p[j]) / (p[i] * (1 - p[i]) * p[j] * (1 - p[j])).sqrt().clamp_min(1e-12)
        pearson = (p[i] * product / drawn[i] - mean[i] * mean[j]) / (deviation[i] * deviation[j]).clamp_min(1e-12)
        for score, name, kind in ((phi, "with", "phi"), (pearson, "like", "pearson")):
            best = Best(len(part), NEAR)
            best.add(pairs // n, score.float(), lambda at, j=j: {"other": j[at].int()})
            kinds[kind].append(torch.where(best.scores.isfinite(), best.scores.clamp(-1, 1), 0))
            kinds[name].append(best.of.get("other", torch.zeros(len(part), NEAR, dtype=torch.int32)))
    return {name: torch.cat(tensors) for name, tensors in kinds.items()}
