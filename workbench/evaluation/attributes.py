"""How few named scores tell classes apart, and whether their names have anything to do with it.

Hundreds of attributes with plausible names classify no better than as many random words, and a few well chosen ones
do as well as all (Yan et al. 2023, arXiv 2308.03685). What named scores can do is therefore shown beside two controls
that cannot be switched off, at every number of attributes:

shuffled       the same names on other scores: what any so many real scores do
random words   scores that know nothing of the rows, in the same search: each real one dealt out anew among the rows,
               so that it keeps its mean, its norm and how often it is silent; or the scores of words that are given

Axes: [row, attribute] for scores, [row] for classes. Rates are of rows that neither search nor probe has seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from workbench.evaluation.intervals import Interval, rate
from workbench.evaluation.rows import judges
from workbench.evaluation.search import forward

FOLDS = 3
PENALTIES = [1e-3, 1e-2, 1e-1, 1.0]
"""Inverse penalties of which the probe on all scores takes the best, by cross-validation."""


@dataclass(frozen=True)
class Concise:
    """Accuracy against the number of attributes, with controls."""

    chosen: tuple[str, ...]
    """The attributes in the order in which the search took them: the first k are its choice of k."""

    numbers: tuple[int, ...]
    """How many attributes each of the rates below is with."""

    true: tuple[Interval, ...]
    """Accuracy of a probe on the attributes chosen."""

    shuffled: tuple[Interval, ...]
    """The same after names have been shuffled among scores, over all draws."""

    random: tuple[Interval, ...]
    """The same of random words, chosen as the attributes are, over all draws."""

    all: Interval
    """Accuracy of a probe on every attribute, with the best of four penalties."""

    chance: float
    """Accuracy of always naming the class that is most frequent among the rows fitted."""

    def smallest(self, keep: float = 0.95) -> tuple[str, ...]:
        """Return the fewest attributes, of the numbers tried, whose accuracy is ``keep`` times that of all."""
        for number, found in zip(self.numbers, self.true, strict=True):
            if found.value >= keep * self.all.value:
                return self.chosen[:number]
        best = max(found.value for found in self.true)
        raise ValueError(
            f"No number of attributes tried {self.numbers} keeps {keep:g} of the accuracy {self.all.value:.3f} of all; "
            f"the best has {best:.3f}. Try larger numbers, or keep less."
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row per number and kind of label: the accuracy and its 95 % interval."""
        kinds = {"true": self.true, "shuffled": self.shuffled, "random words": self.random}
        rows = [
            {"number": number, "labels": kind, "accuracy": found.value, "low": found.low, "high": found.high}
            for kind, rates in kinds.items()
            for number, found in zip(self.numbers, rates, strict=True)
        ]
        return pd.DataFrame(rows).sort_values("number", kind="stable", ignore_index=True)


def concise(
    scores: Float[Tensor, "row attribute"],
    classes: Int[Tensor, " row"],
    names: Sequence[str],
    *,
    numbers: Sequence[int] = (1, 2, 4, 8, 16),
    words: Float[Tensor, "row word"] | None = None,
    draws: int = 5,
    held_out: Bool[Tensor, " row"] | None = None,
    seed: int = 0,
) -> Concise:
    """Return how well ever more of the named scores tell ``classes`` apart, beside shuffled and random names.

    The search is greedy (ours; the paper learns directions and rounds each to a word): next comes the score that
    most lowers the squared error of a linear fit of the classes. The probe is multinomial logistic regression.

    Args:
        scores: For instance the codes of latents that have labels.
        classes: What is told apart, as numbers.
        names: Of the scores, each once.
        numbers: Of attributes, at which all are measured.
        words: Scores of words picked at random, if there are such. Each draw searches as many as there are names.
        draws: Of each control.
        held_out: Rows that judge; a random quarter by default.
        seed: Of that quarter and of the controls.
    """
    numbers = tuple(sorted(set(numbers)))
    _check(scores, classes, names, numbers, words, draws)
    judging = judges(len(scores), held_out, seed)
    kinds, y = classes.cpu().unique(return_inverse=True)
    fewest = int(y[~judging].bincount(minlength=len(kinds)).min())
    if len(kinds) < 2 or fewest < FOLDS:
        raise ValueError(
            f"Two classes or more are told apart, each with {FOLDS} or more of the rows that are fitted; got "
            f"{len(kinds)}, and {fewest} rows of the rarest. Leave out the rows of rare classes."
        )
    generator = Generator().manual_seed(seed)
    x = _units(scores, judging)
    targets = F.one_hot(y).double()
    targets = targets - targets[~judging].mean(0)

    def search(pool: Tensor) -> Tensor:
        return forward(pool[~judging], targets[~judging], numbers[-1])

    def hits(pool: Tensor, order: Tensor) -> list[Tensor]:
        return [_hits(pool[:, order[:number]], y, judging) for number in numbers]

    def rates(found: list[list[Tensor]]) -> tuple[Interval, ...]:
        return tuple(rate(torch.stack(of_number)) for of_number in zip(*found, strict=True))

    def random_words() -> Tensor:
        if words is None:
            dealt = [torch.randperm(len(x), generator=generator) for _ in names]
            return _units(torch.stack([x[rows, i] for i, rows in enumerate(dealt)], dim=1), judging)
        return _units(words[:, torch.randperm(words.shape[1], generator=generator)[: len(names)]], judging)

    order = search(x)
    dealt = [torch.randperm(x.shape[1], generator=generator)[: len(order)] for _ in range(draws)]
    pools = [random_words() for _ in range(draws)]
    return Concise(
        chosen=tuple(names[int(i)] for i in order),
        numbers=numbers,
        true=rates([hits(x, order)]),
        shuffled=rates([hits(x, others) for others in dealt]),
        random=rates([hits(pool, search(pool)) for pool in pools]),
        all=rate(_hits(x, y, judging, penalised=True)[None]),
        chance=float((y[judging] == y[~judging].mode().values).double().mean()),
    )


def _check(
    scores: Tensor, classes: Tensor, names: Sequence[str], numbers: tuple[int, ...], words: Tensor | None, draws: int
) -> None:
    pools = [scores] if words is None else [scores, words]
    if len({len(table) for table in (*pools, classes)}) > 1 or not len(set(names)) == len(names) == scores.shape[1]:
        raise ValueError(
            "concise takes a class for each row of scores, and for each column a name of its own; got scores "
            f"{tuple(scores.shape)}, {'' if words is None else f'words {tuple(words.shape)}, '}{len(classes)} classes "
            f"and {len(set(names))} different names."
        )
    if not all(bool(pool.isfinite().all()) for pool in pools):
        raise ValueError("Scores must be finite, but there is NaN or infinity among them.")
    most = min(pool.shape[1] for pool in pools)
    if not numbers or not 1 <= numbers[0] <= numbers[-1] <= most or draws < 1:
        raise ValueError(
            f"numbers of attributes lie in 1..{most}, as many as there are scores, and there is a draw at least; got "
            f"numbers {numbers} and {draws} draws."
        )


def _units(pool: Tensor, judging: Tensor) -> Tensor:
    """Return scores of mean 0 and variance 1 on the rows fitted; 0 where they do not vary there."""
    pool = pool.detach().cpu().double()
    fitted = pool[~judging]
    spread = fitted.std(0, correction=0)
    # A constant may differ from its mean in the last digits.
    varies = spread > 1e-10 * fitted.abs().amax(0)
    return torch.where(varies, (pool - fitted.mean(0)) / spread.clamp_min(1e-300), 0.0)


def _hits(pool: Tensor, y: Tensor, judging: Tensor, *, penalised: bool = False) -> Tensor:
    """Return which of the rows that judge a probe names right."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    probe = LogisticRegression(max_iter=1000)
    if penalised:
        # On as many scores as rows a probe learns the rows, and would be a low bar; a few scores need no such care.
        probe = GridSearchCV(probe, {"C": PENALTIES}, cv=FOLDS)
    probe.fit(pool[~judging].numpy(), y[~judging].numpy())
    return torch.from_numpy(probe.predict(pool[judging].numpy())) == y[judging]
