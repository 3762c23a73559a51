"""How well scores tell the active from the silent, with intervals and controls.

All of it is balanced: a score that knows nothing has 0.5 in expectation, whatever the share of what is active. Balanced
accuracy is the area under the ROC curve of a yes or a no, so that one interval serves both.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.optimize import brentq

from workbench.features.feature import Example

Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Interval:
    """What was measured and where the truth lies, in 95 % of all cases unless another level was asked for."""

    value: float
    """What was measured."""

    low: float
    """The lower end of the interval."""

    high: float
    """The upper end."""


@dataclass(frozen=True)
class Score(Interval):
    """A number beside what it would be by chance."""

    shuffled: Interval
    """The same of labels that belong to something else: the null to hold it against."""

    random: Interval
    """The same of words, or of a place, drawn at random."""


@dataclass(frozen=True)
class Prediction:
    """How well an explanation predicts one thing."""

    auroc: Score
    """Area under the ROC curve of the predicted scores."""

    accuracy: Score
    """Balanced accuracy, a score of 0.5 or more being a yes."""


Scored = list[np.ndarray]
"""Of each context, a score for each of its tokens."""


def detection(active: Scored, silent: Scored) -> tuple[np.ndarray, np.ndarray]:
    """Return the highest score in each context of either kind (Paulo et al. 2024, arXiv 2410.13928)."""
    return np.array([one.max() for one in active]), np.array([one.max() for one in silent])


def fuzzing(active: Scored, contexts: Sequence[Example], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean score of the tokens that are active in each context, and of as many that are not (ibid.).

    Where more than half of a context is active, some of the active tokens are left out; a context without a silent
    token is left out as a whole.
    """
    random = np.random.default_rng(seed)
    right, wrong = [], []
    for scores, one in zip(active, contexts, strict=True):
        on = np.array(one.acts) > 0
        on[one.at] = True  # an act too small for half precision
        n = min(on.sum(), (~on).sum())
        if n:
            right.append(scores[random.choice(on.nonzero()[0], n, replace=False)].mean())
            wrong.append(scores[random.choice((~on).nonzero()[0], n, replace=False)].mean())
    return np.array(right), np.array(wrong)


def auroc(yes: np.ndarray, no: np.ndarray) -> Interval:
    """Return how often a score of ``yes`` is above one of ``no``, ties counting half.

    The interval holds the areas from which this one is within 1.96 standard deviations, by the variance of Hanley and
    McNeil (1982) as Newcombe (2006, Statistics in Medicine 25:559, method 5) takes it: no area is certain, not even 1.
    Contexts count as independent.
    """
    m, n = len(yes), len(no)
    found = (1 + float(np.sign(yes[:, None] - no).mean())) / 2
    mean = (m + n) / 2 - 1

    def deviation(area: float) -> float:
        return math.sqrt(area * (1 - area) * (1 + mean * ((1 - area) / (2 - area) + area / (1 + area))) / (m * n))

    return _within(found, deviation)


def accuracy(yes: np.ndarray, no: np.ndarray) -> Interval:
    """Return the balanced accuracy of taking a score of 0.5 or more for a yes."""
    return auroc((yes >= 0.5).astype(float), (no >= 0.5).astype(float))


def mean(values: np.ndarray) -> Interval:
    """Return the mean of numbers between 0 and 1, with Wilson's interval, which is wide enough for any such numbers."""
    return wilson(float(values.mean()), len(values))


def wilson(rate: float, n: float | int, z: float = Z) -> Interval:
    """Return a rate of ``n`` cases with all true rates from which it is within ``z`` deviations (Wilson 1927)."""
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    return Interval(rate, max(min(centre - reach, rate), 0.0), min(max(centre + reach, rate), 1.0))


def _within(found: float, deviation: Callable[[float], float]) -> Interval:
    """Return a number with all values from which it is no further than ``Z`` deviations as its interval."""

    def edge(end: float) -> float:
        start = min(max(found, 1e-9), 1 - 1e-9)  # at 0 and 1 nothing deviates, and the search would end there
        if abs(found - end) <= 1e-9:
            return end
        return brentq(lambda true: abs(found - true) - Z * deviation(true), start, end)  # type: ignore[return-value]

    return Interval(found, edge(0.0), edge(1.0))


def beside(true: Interval, shuffled: Interval, random: Interval) -> Score:
    """Return a number with its controls."""
    return Score(true.value, true.low, true.high, shuffled, random)
