"""What the features of a dictionary mean in the words of known attributes, and which values have no feature.

The third test of Makelov et al. (2024, arXiv 2405.08366), and the two ways they show in which dictionaries fail it. A
feature is read as where it is active, and a meaning as where it is true: F1 tells how far the two are the same. What
is chosen, a meaning or some features, is chosen on train rows and scored on others.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Literal

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from workbench.dictionaries import Dictionary
from workbench.evaluation.supervised import Labelled, Supervised, codes_of, f1_scores, one_hots, supervise

VALUES = 10
"""Values that a union has at most (Makelov et al. 2024)."""

FOUND, WHOLE, MISSING = 0.7, 0.9, 0.6
"""F1 from which a feature is that of a value; from which several are it together, or it can be read at all; and below
which it is missing."""

GAIN = 0.01
"""What one more feature must add to the F1 of several."""

Words = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Meaning:
    """What one feature stands for."""

    feature: int
    """Its number."""

    kind: Literal["value", "both", "any"]
    """One value; values of two attributes at once; any of several values of one attribute."""

    words: str
    """Which: "IO = Mary", "IO = Mary & Pos = first", "IO = Mary | Paul"."""

    train: float
    """F1 on the rows where it was chosen: of all meanings the largest."""

    f1: float
    """F1 on other rows; NaN where it is never active there and nothing is meant."""


@dataclass(frozen=True)
class Interpretation:
    """What all features of a dictionary stand for."""

    meanings: tuple[Meaning, ...]
    """One for each feature that is active on some train row."""

    n_features: int
    """How many features there are."""

    def above(self, f1: float) -> Bool[Tensor, " feature"]:
        """Return which features have a meaning whose F1 on held-out rows exceeds ``f1``."""
        chosen = torch.zeros(self.n_features, dtype=torch.bool)
        chosen[[meaning.feature for meaning in self.meanings if meaning.f1 > f1]] = True
        return chosen

    def to_frame(self) -> pd.DataFrame:
        """Return one row per feature, the best first."""
        frame = pd.DataFrame([asdict(meaning) for meaning in self.meanings], columns=[*Meaning.__dataclass_fields__])
        return frame.sort_values("f1", ascending=False, ignore_index=True)


def interpret(
    dictionary: Dictionary | Supervised, train: Labelled, held_out: Labelled, *, words: Words | None = None
) -> Interpretation:
    """Return what each feature means: a value, values of two attributes at once, or any of up to ten values of one.

    Of all unions the best is found exactly: the largest ratio of two sums is where their difference, the one less the
    ratio times the other, has its maximum at zero (Dinkelbach 1967).

    Args:
        dictionary: Whose features.
        train: Where meanings are chosen.
        held_out: Where they are scored.
        words: What the values of attributes are called; else they are numbers.
    """
    active, test = ((codes_of(dictionary, rows) != 0).float() for rows in (train, held_out))
    columns, there = one_hots(train), one_hots(held_out, train)
    # Of each kind of meaning the best score [feature] and, for a feature, the values it takes of each attribute.
    kinds = []
    for name, seen in columns.items():
        scores, best = f1_scores(active, seen).max(0)
        kinds.append(("value", scores, [{name: [v]} for v in best.tolist()]))
    for name, seen in columns.items():
        scores, unions = _unions(active, seen)
        kinds.append(("any", scores, [{name: union.nonzero()[:, 0].tolist()} for union in unions.T]))
    for one, other in combinations(columns, 2):
        both = (columns[one][:, :, None] * columns[other][:, None]).flatten(1)
        scores, best = f1_scores(active, both).max(0)
        width = columns[other].shape[1]
        kinds.append(("both", scores, [{one: [v // width], other: [v % width]} for v in best.tolist()]))
    # Of equal scores the simpler kind, which comes first.
    of = (torch.stack([scores for _, scores, _ in kinds]) - 1e-6 * torch.arange(len(kinds))[:, None]).argmax(0)
    meanings = []
    for feature in active.any(0).nonzero()[:, 0].tolist():
        kind, scores, taken = kinds[of[feature]]
        values = taken[feature]
        true = torch.stack([there[name][:, chosen].sum(1) for name, chosen in values.items()]).prod(0)
        fires = test[:, [feature]]
        f1 = f1_scores(fires, true[:, None]) if fires.any() or true.any() else math.nan
        said = " & ".join(
            f"{name} = {' | '.join(str(words[name][v] if words else v) for v in chosen)}"
            for name, chosen in values.items()
        )
        meanings.append(Meaning(feature, kind, said, float(scores[feature]), float(f1)))
    return Interpretation(tuple(meanings), active.shape[1])


@dataclass(frozen=True)
class Coverage:
    """Which values of the attributes a dictionary has features for."""

    attribute: tuple[str, ...]
    """Of each value, what it is a value of."""

    value: tuple[int, ...]
    """The number of the value there."""

    rows: tuple[int, ...]
    """On how many held-out rows it is true."""

    best: tuple[float, ...]
    """F1 of the one feature that is best on train rows."""

    together: tuple[float, ...]
    """F1 of several, of which any is active."""

    features: tuple[tuple[int, ...], ...]
    """These, in the order in which each adds most."""

    readable: tuple[float, ...]
    """F1 with which the supervised directions tell this value from the other ones: no dictionary of the place need do
    better."""

    size: tuple[float, ...]
    """Length of the supervised direction."""

    verdict: tuple[Literal["found", "split", "occluded", "missing", ""], ...]
    """"found": a feature has F1 0.7; "split": no feature has, but three or more together have 0.9. The rest can be
    read at 0.9, and no feature has 0.6: "occluded", where another attribute of the same rows is larger and has better
    features, and "missing" where none is. What is neither is ""."""

    def to_frame(self) -> pd.DataFrame:
        """Return one row per value."""
        return pd.DataFrame(asdict(self))


def coverage(dictionary: Dictionary | Supervised, train: Labelled, held_out: Labelled) -> Coverage:
    """Return which values have a feature, and which are occluded or split over several.

    Directions are those of least squares, and read by linear discriminant analysis with the covariance of Ledoit and
    Wolf (2004): by the nearest mean, in units of what varies within a value.

    Args:
        dictionary: Whose features.
        train: Where features are chosen and directions are made.
        held_out: Where both are scored.
    """
    active, test = ((codes_of(dictionary, rows) != 0).float() for rows in (train, held_out))
    columns, there = one_hots(train), one_hots(held_out, train)
    sizes = {name: v.norm(dim=1) for name, v in supervise(train, estimator="least squares").vectors.items()}
    best, found = {}, []
    for name, seen in columns.items():
        single = f1_scores(active, seen).argmax(1)
        best[name] = f1_scores(test, there[name])[torch.arange(len(single)), single]
        groups = _greedy(active, seen)
        any_of = [test[:, group].sum(1, keepdim=True).clamp(max=1) for group in groups]
        several = [f1_scores(on, there[name][:, [v]]) for v, on in enumerate(any_of)]
        readable = _readable(train, held_out, name, seen.shape[1])
        for v in seen.any(0).nonzero()[:, 0].tolist():
            rows, one, together = int(there[name][:, v].sum()), float(best[name][v]), float(several[v])
            found.append((name, v, rows, one, together, tuple(groups[v]), float(readable[v]), float(sizes[name][v])))
    verdicts = []
    for name, v, _, one, several, group, readable, size in found:
        with_ = {other: columns[name][:, v] @ columns[other] for other in columns if other != name}
        beside = {other: counts / counts.sum() for other, counts in with_.items() if counts.any()}
        larger = any(
            share @ sizes[other].nan_to_num() > size and share @ best[other] > one for other, share in beside.items()
        )
        lost = readable >= WHOLE and one < MISSING
        split = len(group) >= 3 and several >= WHOLE
        verdicts.append(
            "found" if one >= FOUND else "split" if split else "" if not lost else "occluded" if larger else "missing"
        )
    return Coverage(*zip(*found, strict=True), tuple(verdicts))  # pyright: ignore[reportCallIssue]


def _unions(active: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest F1 [feature] of a union of at most ``VALUES`` columns, and these as ones [column, feature]."""
    both, true, fires = columns.T @ active, columns.sum(0)[:, None], active.sum(0)
    f1 = f1_scores(active, columns).amax(0)
    while True:
        gain, largest = (2 * both - f1 * true).topk(min(VALUES, len(both)), dim=0)
        union = torch.zeros_like(both).scatter_(0, largest, (gain > 0).float())
        better = 2 * (union * both).sum(0) / (fires + (union * true).sum(0)).clamp_min(1)
        if not (better > f1 + 1e-6).any():
            return better, union
        f1 = torch.maximum(better, f1)


def _greedy(active: Tensor, columns: Tensor) -> list[list[int]]:
    """Return, for each column, features of which any is active where it is true: each time what adds most to the F1."""
    groups: list[list[int]] = [[] for _ in columns.T]
    covered, f1 = torch.zeros_like(columns), torch.zeros(columns.shape[1])
    while True:
        new = 1 - covered
        hits = (covered * columns).sum(0)[:, None] + (new * columns).T @ active
        fires = covered.sum(0)[:, None] + new.T @ active
        score, feature = (2 * hits / (columns.sum(0)[:, None] + fires).clamp_min(1)).max(1)
        for v in (better := score > f1 + GAIN).nonzero()[:, 0].tolist():
            groups[v].append(int(feature[v]))
        if not better.any():
            return groups
        covered = torch.where(better, torch.maximum(covered, active[:, feature]), covered)
        f1 = torch.where(better, score, f1)


def _readable(train: Labelled, held_out: Labelled, name: str, width: int) -> Tensor:
    """Return F1 [value] of linear discriminant analysis on held-out rows."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis  # not at the top: it takes a second to load

    values = train.attributes[name].numpy()
    if len(set(values.tolist())) < 2:
        raise ValueError(f"{name!r} has the same value on all train rows, so there is nothing to tell apart; leave it.")
    reader = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(train.acts.double().numpy(), values)
    said = torch.from_numpy(reader.predict(held_out.acts.double().numpy()))[:, None] == torch.arange(width)
    true = held_out.attributes[name][:, None] == torch.arange(width)
    return f1_scores(said.float(), true.float()).diagonal()
