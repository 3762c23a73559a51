"""How many bits an activation takes when it is sent as codes, and what these leave is sent after them."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.dictionaries import Codes, Dictionary

LEFT = 0.05
"""Share of the variance that may be lost on the way."""

STEPS = tuple(2.0**-i for i in range(9))
"""Widths of the bins that codes are rounded to, as shares of the root mean square of those that are not zero."""


@torch.no_grad()
def description_length(
    dictionary: Dictionary, x: Float[Tensor, "row d_in"], y: Float[Tensor, "row d_out"], codes: Codes
) -> float:
    """Return the bits per activation that it takes to send ``y`` by ``codes``, up to 5 % of its variance.

    Minimum description length (Ayonrinde et al. 2024, arXiv 2410.11179), in two parts that add up, so that dictionaries
    of any size, sparsity and error can be compared. Codes are rounded to bins of one width, and each feature's bins
    are sent by the adaptive code of Krichevsky and Trofimov (1981), which learns how often each is met; the directions
    themselves are known to both sides. What is left is sent as a normal variable of its own covariance, no more of it
    than the distortion asks for (reverse water-filling, Shannon 1959). Bins are halved until that costs more.

    Args:
        dictionary: What the codes are of.
        x: What it read; a skip transcoder adds a part of it that costs nothing.
        y: What is to be rebuilt.
        codes: Of ``x``.
    """
    y = y.double()
    variance = float((y - y.mean(0)).square().sum(1).mean())
    active = codes.values != 0
    if not bool(active.any()):
        return gaussian_bits(y, LEFT * variance)
    skip = dictionary.skip(x).double()
    unit = float(codes.values[active].double().square().mean().sqrt())
    best = math.inf
    for width in STEPS:
        left = y - skip - dictionary.decode(_rounded(codes, width * unit)).double()
        bits = _coded(codes, active, width * unit) + gaussian_bits(left, LEFT * variance)
        if bits > best:  # finer bins cost more and more, and what they leave falls less and less
            break
        best = bits
    return best


def gaussian_bits(x: Float[Tensor, "row d"], distortion: float) -> float:
    """Return the bits per row that a normal variable of the covariance of ``x`` takes up to a mean squared error.

    Below the water level a direction is not sent at all, above it half a bit for each doubling of its variance.
    """
    x = x.double() - x.double().mean(0)
    power = torch.linalg.eigvalsh(x.T @ x / len(x)).clamp_min(0).flip(0)
    if float(power.sum()) <= distortion:
        return 0.0
    # With n directions sent, the level is what the others leave of the distortion, shared among the n.
    beyond = power.sum() - power.cumsum(0)
    level = (distortion - beyond) / torch.arange(1, len(power) + 1)
    n = int((power > level).long().cumprod(0).sum())
    return float((power[:n] / level[n - 1]).log2().sum() / 2)


def _rounded(codes: Codes, width: float) -> Codes:
    return Codes((codes.values / width).round() * width, codes.indices, codes.n_features)


def _coded(codes: Codes, active: Tensor, width: float) -> float:
    """Return the bits per row of all codes, each feature's bins sent one after the other by what was met so far."""
    rows = codes.values.flatten(0, -2).shape[0]
    bins, of = (codes.values[active] / width).round().long().cpu(), codes.indices[active].cpu()
    of, bins = of[bins != 0], bins[bins != 0]
    span = 2 * int(bins.abs().max()) + 1 if len(bins) else 1
    keys, counts = (of * span + bins + span // 2).unique(return_counts=True)
    met, at = keys // span, keys % span - span // 2
    none = torch.zeros(codes.n_features, dtype=torch.long)
    low, high = (none.scatter_reduce(0, met, at, how) for how in ("amin", "amax"))
    kinds = (high - low + 1).double()  # bins between the lowest and the highest, zero among them
    silent = rows - torch.bincount(of, minlength=codes.n_features).double()
    # The chance of a sequence, by the counts of its bins, where each was met half a time before the first.
    half = math.lgamma(0.5)
    nats = torch.lgamma(rows + kinds / 2) - torch.lgamma(kinds / 2) - torch.lgamma(silent + 0.5) + half
    nats.index_add_(0, met, half - torch.lgamma(counts.double() + 0.5))
    return float(nats.sum()) / rows / math.log(2)
