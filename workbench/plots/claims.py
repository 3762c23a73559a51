"""What a figure can be claimed to show, checked on the numbers it draws.

What the eye reads off a figure can be asserted (Shome et al. 2024): ``plot.claims(rises("ReLU network"))``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Claim:
    """A property of the series that a figure draws; made by :func:`rises` and its like."""

    text: str
    """The property in words."""

    series: tuple[str, ...]
    """Names of the series it speaks of, as in the legend."""

    holds: Callable[..., bool]
    """Tells whether it holds of the values of these series; of values that are no numbers it never does."""


def rises(series: str) -> Claim:
    """Claim that each value is above the one before."""
    return Claim(f"{series!r} rises at every step", (series,), lambda y: len(y) > 1 and all(y.diff()[1:] > 0))


def falls(series: str) -> Claim:
    """Claim that each value is below the one before."""
    return Claim(f"{series!r} falls at every step", (series,), lambda y: len(y) > 1 and all(y.diff()[1:] < 0))


def within(
    series: str, low: float = -float("inf"), high: float = float("inf"), *, at: Sequence[str] | None = None
) -> Claim:
    """Claim that the values at these places, or all of them, lie from ``low`` to ``high``."""
    text = f"{series!r} lies in {low:g}..{high:g}" + (f" at {', '.join(at)}" if at else "")

    def holds(y: pd.Series) -> bool:
        return all(low <= value <= high for value in (y if at is None else [_at(y, place) for place in at]))

    return Claim(text, (series,), holds)


def steady(series: str, *, within: float) -> Claim:
    """Claim that the largest value is above the smallest by at most ``within``."""
    return Claim(f"{series!r} changes by at most {within:g}", (series,), lambda y: bool(np.ptp(y) <= within))


def ordered(series: str, *places: str, times: float = 1.0) -> Claim:
    """Claim that the value at each of ``places`` is more than ``times`` the value at the next."""
    text = f"{series!r} at {f' is more than {times:g} times that at '.join(map(repr, places))}"

    def holds(y: pd.Series) -> bool:
        at = [_at(y, place) for place in places]
        return len(at) > 1 and all(one > times * other for one, other in pairwise(at))

    return Claim(text, (series,), holds)


def above(series: str, other: str, *, by: float = 0.0, at: Sequence[str] | None = None) -> Claim:
    """Claim that one series is above another by more than ``by``, at these places or everywhere."""
    text = f"{series!r} is above {other!r}" + (f" by more than {by:g}" if by else "")

    def holds(y: pd.Series, z: pd.Series) -> bool:
        pairs = zip(y, z, strict=True) if at is None else [(_at(y, place), _at(z, place)) for place in at]
        return all(one > two + by for one, two in pairs)

    return Claim(text + (f" at {', '.join(at)}" if at else ""), (series, other), holds)


def peaks(series: str, at: str) -> Claim:
    """Claim that the value at one place is above all others."""
    text = f"{series!r} is highest at {at!r}"
    return Claim(text, (series,), lambda y: bool((_at(y, at) > y[y.index != at]).all()))


def _at(values: pd.Series, place: str) -> float:
    found = [value for at, value in values.items() if at == place]
    if len(found) != 1:
        drawn = ", ".join(map(repr, values.index))
        raise ValueError(f"{values.name!r} is drawn at {drawn}: {len(found)} times at {place!r}, and not once.")
    return found[0]
