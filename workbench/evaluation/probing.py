"""Sparse probing: how few neurons, or latents, tell whether a row has a label (Gurnee et al. 2023, arXiv 2305.01610).

A score that is high with one unit localises the label; one that only many units reach together speaks for
superposition. Whatever looks at labels, the choice of units, the fit and its threshold, sees training rows alone, and
the same is done once more with labels dealt out anew. Axes: [row, unit] for activations, of neurons or of the
features of a dictionary; a row is a token, or a span of tokens.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args, overload

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.dictionaries import Codes
from workbench.features.encoding import sparse

Ranking = Literal["mean_difference", "f_statistic", "mutual_information", "l1_logistic", "svm", "exchange"]


@dataclass(frozen=True)
class Scores:
    """How well a probe tells rows with the label from the others."""

    f1: float
    """Harmonic mean of precision and recall."""

    precision: float
    """Share of the rows told to have the label that have it; 0 where none is told to."""

    recall: float
    """Share of the rows with the label that are told to have it."""

    pr_auc: float
    """Average precision over all thresholds; a guess has the share of rows with the label."""

    auroc: float
    """Probability that a row with the label scores above one without; a guess has 0.5."""

    mcc: float
    """Correlation of what is told with what is so (Matthews 1975); a guess has 0."""


@dataclass(frozen=True)
class Probe:
    """A linear read-out of few units: ``x[:, units] @ weight + bias >= 0`` tells the label."""

    units: Int[Tensor, " k"]
    """Which units, the first of the ranking first; of ``"exchange"`` in no order."""

    weight: Float[Tensor, " k"]
    """Of each unit, per unit of its activation."""

    bias: float
    """With the threshold at which F1 is best on the training rows."""

    scores: Scores
    """On held-out rows."""

    shuffled: Scores
    """The same with labels dealt out anew before anything was chosen: what there is to be had by chance."""


@dataclass(frozen=True)
class SparseProbe:
    """Probes of one label, of few units and of more."""

    ranking: Ranking
    """How the units were chosen."""

    by_k: dict[int, Probe]
    """The probe of each number of units."""

    def to_frame(self) -> pd.DataFrame:
        """Return one line for each k: its scores, and those of shuffled labels beside them."""
        lines = []
        for k, probe in self.by_k.items():
            shuffled = {f"{name} shuffled": score for name, score in asdict(probe.shuffled).items()}
            lines.append({"ranking": self.ranking, "k": k, **asdict(probe.scores), **shuffled})
        return pd.DataFrame(lines)


def sparse_probe(
    x: Float[Tensor, "row unit"] | Codes,
    y: Bool[Tensor, " row"],
    *,
    ks: Sequence[int] = (1, 2, 4, 8, 16),
    ranking: Ranking = "mean_difference",
    held_out: Bool[Tensor, " row"] | None = None,
    prefilter: int = 128,
    seed: int = 0,
) -> SparseProbe:
    """Return how well the best ``k`` units tell ``y``, for each k: class-balanced logistic regression on them.

    Units are ranked in two steps. The ``prefilter`` units whose class means differ most, in the unit of the
    activations, are kept. These, scaled to variance one, are then ordered by

    - ``"mean_difference"``: that same difference;
    - ``"f_statistic"``: variance between classes over that within them;
    - ``"mutual_information"`` with the label, estimated from nearest neighbours (Ross 2014), a unit at a time;
    - ``"l1_logistic"``, ``"svm"``: the size of their weights in a sparse logistic regression, a linear SVM of all;
    - ``"exchange"``: for each k a subset of its own, in place of the optimal one that the paper has from a solver.
      From the subset of k - 1 and the unit that helps most, single units are exchanged until no exchange explains
      more of the label, by class-balanced least squares. That is optimal for k = 1 and a local optimum beyond.

    Args:
        x: Activations, or sparse codes of shape [row, k], of which only the units kept are ever made dense.
        y: Whether each row has the label.
        ks: Numbers of units.
        ranking: How units are chosen.
        held_out: The rows to score on; choose whole documents where tokens of one are alike. By default a random
            quarter of each class.
        prefilter: How many units the ranking compares; never fewer than the largest of ``ks``.
        seed: Of the held-out rows, the shuffled labels, and the estimate of mutual information.
    """
    matrix = _matrix(x)
    truth, ks = _checked(matrix, y, ks, ranking)
    rng = np.random.default_rng(seed)
    held = np.zeros(len(truth), dtype=bool)
    if held_out is None:
        for rows in (np.flatnonzero(truth), np.flatnonzero(~truth)):
            held[rng.permutation(rows)[: len(rows) // 4]] = True
    elif len(held_out) != len(truth) or held_out.dtype != torch.bool:
        raise ValueError(
            f"held_out says True or False of each of {len(truth)} rows, got {len(held_out)} of {held_out.dtype}."
        )
    else:
        held = held_out.cpu().numpy()
    for name, part in (("training", ~held), ("held-out", held)):
        if min(here := (int(truth[part].sum()), int((~truth[part]).sum()))) < 2:
            raise ValueError(
                f"The {name} rows need two with the label and two without, got {here[0]} and {here[1]}; give more rows."
            )
    dealt = truth.copy()
    for part in (held, ~held):  # within each, so that both keep their share
        dealt[part] = rng.permutation(truth[part])
    found, chance = (_fits(matrix, t, held, ks, ranking, prefilter, seed % 2**32) for t in (truth, dealt))
    probes = {
        k: Probe(torch.from_numpy(units), torch.from_numpy(weight).float(), bias, scores, shuffled)
        for k, (units, weight, bias, scores), (*_, shuffled) in zip(ks, found, chance, strict=True)
    }
    return SparseProbe(ranking, probes)


@overload
def over_spans(
    x: Float[Tensor, "row unit"], spans: Int[Tensor, " row"], how: Literal["max", "mean"] = "max"
) -> Float[Tensor, "span unit"]: ...
@overload
def over_spans(x: Codes, spans: Int[Tensor, " row"], how: Literal["max", "mean"] = "max") -> Codes: ...
def over_spans(
    x: Float[Tensor, "row unit"] | Codes, spans: Int[Tensor, " row"], how: Literal["max", "mean"] = "max"
) -> Float[Tensor, "span unit"] | Codes:
    """Return the largest or the mean activation of every unit in each span: one row where there were several.

    >>> over_spans(torch.tensor([[1.0, 0.0], [3.0, -2.0], [5.0, 5.0]]), torch.tensor([0, 0, -1]))
    tensor([[3., 0.]])

    Args:
        x: Activations or codes of tokens; of codes a silent feature counts as 0.
        spans: The number of each row's span, counted from 0 without gaps, or -1 for a row that lies in none.
        how: ``"max"`` finds a label that one token of the span carries, ``"mean"`` what all of them share.
    """
    rows = len(x.values if isinstance(x, Codes) else x)
    sizes = spans[spans >= 0].bincount()
    if how not in ("max", "mean") or len(spans) != rows or not len(sizes) or not bool(sizes.all()):
        raise ValueError(
            f'over_spans takes "max" or "mean" and a span for each of {rows} rows, counted from 0 without gaps, or -1; '
            f"got {how!r} and {len(spans)} numbers, with {int((sizes == 0).sum())} gaps among {len(sizes)} spans."
        )
    inside = spans >= 0
    of = spans[inside]
    if isinstance(x, Tensor):
        acts = x[inside]
        pooled = acts.new_zeros(len(sizes), acts.shape[1])
        reduce = "amax" if how == "max" else "mean"
        return pooled.scatter_reduce(0, of[:, None].expand_as(acts), acts, reduce, include_self=False)
    values = x.values[inside]
    active = values != 0
    # One number for each pair of span and feature, in the order of spans.
    pairs, at = (of[:, None] * x.n_features + x.indices[inside])[active].unique(return_inverse=True)
    span, feature = pairs // x.n_features, pairs % x.n_features
    reduce = "amax" if how == "max" else "sum"
    pooled = values.new_zeros(len(pairs)).scatter_reduce(0, at, values[active], reduce, include_self=False)
    sometimes_silent = at.bincount(minlength=len(pairs)) < sizes[span]
    largest = torch.where(sometimes_silent, pooled.clamp_min(0), pooled)
    pooled = largest if how == "max" else pooled / sizes[span]
    held = span.bincount(minlength=len(sizes))
    slot = torch.arange(len(span), device=span.device) - (held.cumsum(0) - held)[span]
    shape = len(sizes), max(int(held.max()), 1)
    packed = values.new_zeros(shape).index_put_((span, slot), pooled)
    return Codes(packed, span.new_zeros(shape).index_put_((span, slot), feature), x.n_features)


def _matrix(x: Tensor | Codes) -> Any:
    """Return activations as an array, codes as a sparse one."""
    shape = tuple(x.values.shape if isinstance(x, Codes) else x.shape)
    if len(shape) != 2:
        raise ValueError(f"sparse_probe takes activations [row, unit] or codes [row, k], got {shape}; flatten them.")
    if isinstance(x, Tensor):
        return x.detach().float().cpu().numpy()
    return sparse(x)


def _checked(matrix: Any, y: Tensor, ks: Sequence[int], ranking: str) -> tuple[np.ndarray, list[int]]:
    """Return the labels as an array, and the numbers of units in order."""
    rows, units = matrix.shape
    if len(y) != rows or y.dtype != torch.bool:
        raise ValueError(
            f"sparse_probe needs True or False for each of {rows} rows, got {len(y)} labels of {y.dtype}; make them by "
            "a comparison such as labels == 3."
        )
    if ranking not in get_args(Ranking):
        raise ValueError(f"{ranking!r} is not a ranking; there are {', '.join(get_args(Ranking))}.")
    if not ks or not all(0 < k <= units for k in ks):
        raise ValueError(f"Each of ks lies in 1..{units} (units), and there is at least one; got {tuple(ks)}.")
    return y.cpu().numpy(), sorted(set(ks))


def _fits(
    matrix: Any, y: np.ndarray, held: np.ndarray, ks: list[int], ranking: Ranking, prefilter: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray, float, Scores]]:
    """Return units, weights, bias and scores for each k."""
    from sklearn.linear_model import LogisticRegression

    y_train = y[~held]
    sides = np.where(y, 1 / y_train.sum(), -1 / (~y_train).sum()) * ~held
    gap = abs(sides.astype(matrix.dtype) @ matrix)
    if not np.isfinite(gap).all():
        raise ValueError(
            f"{int((~np.isfinite(gap)).sum())} of {len(gap)} units are not finite on every row; drop those rows."
        )
    # Ranked by what the filter ranks by, no more are needed than are read.
    compared = max(ks) if ranking == "mean_difference" else max(prefilter, *ks)
    kept = np.argsort(-gap, kind="stable")[:compared]
    x = matrix[:, kept]
    x = (x if isinstance(x, np.ndarray) else x.toarray()).astype(np.float64)
    mean, spread = x[~held].mean(0), x[~held].std(0)
    spread[spread <= 1e-9 * abs(mean)] = 1.0  # a constant unit stays constant
    x = (x - mean) / spread
    found = []
    for chosen in _chosen(x[~held], y_train, ks, ranking, seed):
        fit = LogisticRegression(class_weight="balanced", max_iter=1000).fit(x[~held][:, chosen], y_train)
        margin = fit.decision_function(x[:, chosen])
        threshold = _threshold(y_train, margin[~held])
        weight = fit.coef_[0] / spread[chosen]
        bias = float(fit.intercept_[0] - weight @ mean[chosen]) - threshold
        found.append((kept[chosen], weight, bias, _scores(y[held], margin[held] - threshold)))
    return found


def _threshold(y: np.ndarray, margin: np.ndarray) -> float:
    """Return the threshold of best F1, half-way between the rows that it parts."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, at = precision_recall_curve(y, margin)
    best = int((precision * recall / np.maximum(precision + recall, 1e-12))[:-1].argmax())
    return float(at[max(best - 1, 0) : best + 1].mean())


def _scores(y: np.ndarray, margin: np.ndarray) -> Scores:
    from sklearn import metrics

    told = margin >= 0
    hits = float((told & y).sum())
    return Scores(
        f1=2 * hits / float(told.sum() + y.sum()),
        precision=hits / max(float(told.sum()), 1.0),
        recall=hits / float(y.sum()),
        pr_auc=float(metrics.average_precision_score(y, margin)),
        auroc=float(metrics.roc_auc_score(y, margin)),
        mcc=float(metrics.matthews_corrcoef(y, told)),
    )


def _chosen(x: np.ndarray, y: np.ndarray, ks: list[int], ranking: Ranking, seed: int) -> list[np.ndarray]:
    """Return the columns to use for each k, of columns that are in the order of their mean differences."""
    if ranking == "exchange":
        return _exchanged(x, y, ks)
    order = np.argsort(-STRENGTH[ranking](x, y, seed), kind="stable")
    return [order[:k] for k in ks]


def _f_statistic(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.feature_selection import f_classif

    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", UserWarning)  # of constant units, which have NaN and come last
        return np.nan_to_num(f_classif(x, y)[0], posinf=np.finfo(np.float64).max)


def _mutual_information(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.feature_selection import mutual_info_classif

    return mutual_info_classif(x, y, random_state=seed)


def _l1_logistic(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    fit = LogisticRegression(l1_ratio=1, C=0.1, solver="liblinear", class_weight="balanced", random_state=seed)
    return abs(fit.fit(x, y).coef_[0])


def _svm(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.svm import LinearSVC

    return abs(LinearSVC(class_weight="balanced", random_state=seed).fit(x, y).coef_[0])


# Ranking → how much each column tells.
STRENGTH: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "mean_difference": lambda x, y, seed: -np.arange(x.shape[1]),
    "f_statistic": _f_statistic,
    "mutual_information": _mutual_information,
    "l1_logistic": _l1_logistic,
    "svm": _svm,
}


def _exchanged(x: np.ndarray, y: np.ndarray, ks: list[int]) -> list[np.ndarray]:
    """Return a subset of each size that no exchange of one column makes better."""
    share = np.where(y, 0.5 / y.sum(), 0.5 / (~y).sum())
    x = x - share @ x
    # A ridge far below the variance of one that each column has, for columns that are copies of each other.
    gram = (share[:, None] * x).T @ x + 1e-6 * np.eye(x.shape[1])
    along = x.T @ (share * np.where(y, 1.0, -1.0))

    def gains(held: list[int]) -> np.ndarray:
        """Return how much more of the label is explained with each column beside those held."""
        beside = np.linalg.solve(gram[np.ix_(held, held)], np.column_stack([gram[held], along[held]]))
        left = along - gram[held].T @ beside[:, -1]
        room = gram.diagonal() - (gram[held] * beside[:, :-1]).sum(0)
        gain = left**2 / np.maximum(room, 1e-9)
        gain[held] = -1.0
        return gain

    subsets, held = {}, []
    for k in range(1, max(ks) + 1):
        held = [*held, int(gains(held).argmax())]
        settled = False
        while not settled:
            settled = True
            for i in range(k):
                gain = gains(held[:i] + held[i + 1 :])
                better = int(gain.argmax())
                if gain[better] > (1 + 1e-9) * gain[held[i]]:
                    held[i], settled = better, False
        subsets[k] = np.array(held)
    return [subsets[k] for k in ks]
