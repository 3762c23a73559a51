"""How sure a rate is: the interval that every rate of this room comes with."""

from collections.abc import Sequence

from jaxtyping import Bool
from torch import Tensor

from workbench.features.scoring import Interval, wilson


def rate(hits: Bool[Tensor, "draw row"], *, level: float = 0.95) -> Interval:
    """Return the mean of ``hits`` with its interval (Wilson 1927), true in a share of about ``level`` of all cases.

    Of one draw it is Wilson's own. Several draws judged on the same rows are no rows more: both rows and draws vary,
    and the interval is that of as many independent hits as would vary so much.

    Args:
        hits: Whether each row was got right, in each repetition of what is left to chance. Rows are independent.
        level: The share of intervals that should hold the true rate.

    >>> import torch
    >>> rate(torch.tensor([[True, True, False, True]]))
    Interval(value=0.75, low=0.3006418..., high=0.9544127...)
    """
    from scipy.special import ndtri, stdtrit

    if not hits.numel() or not 0 < level < 1:
        raise ValueError(f"rate takes at least one hit or miss, and a level in 0..1; got {hits.numel()} and {level}.")
    right = hits.double()
    draws, rows = right.shape
    p = float(right.mean())
    n, z = float(rows), float(ndtri((1 + level) / 2))
    by_row = float(right.mean(0).var(correction=0)) / max(rows - 1, 1)
    by_draw = float(right.mean(1).var(correction=0)) / max(draws - 1, 1)
    varies = by_row + by_draw
    if draws > 1 and varies > 0:
        n = min(p * (1 - p) / varies, float(draws * rows))
        # Few draws tell their own variance badly (Satterthwaite 1946).
        z = float(stdtrit(varies**2 / (by_row**2 / max(rows - 1, 1) + by_draw**2 / (draws - 1)), (1 + level) / 2))
    return wilson(p, n, z)


def mean_of(draws: Sequence[float], *, level: float = 0.95) -> Interval:
    """Return the mean of repeated measurements with its interval (Student 1908); of one there is no interval.

    >>> mean_of([1.0, 2.0, 3.0])
    Interval(value=2.0, low=-0.4841377..., high=4.4841377...)
    """
    from scipy.special import stdtrit

    n, value = len(draws), sum(draws) / len(draws)
    if n < 2:
        return Interval(value, float("nan"), float("nan"))
    reach = float(stdtrit(n - 1, (1 + level) / 2)) * (sum((one - value) ** 2 for one in draws) / (n - 1) / n) ** 0.5
    return Interval(value, value - reach, value + reach)
