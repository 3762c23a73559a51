"""Bayes ceilings: how well any causal model can know a label, computed from the exact posteriors.

What a prefix leaves open nobody can know from it. A probe, a feature or a steering vector is therefore held against
the best possible score, not against 1: where the ceiling is chance, there is nothing to find.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from workbench.language.documents import Documents
from workbench.language.language import NAMES, Language

Ahead = Literal[0, 1]


def ceilings(
    language: Language, documents: Documents, labels: Sequence[str] | None = None, *, ahead: Ahead = 0
) -> pd.DataFrame:
    """Return the best AUROC and F1 that any causal model can have for every value of every label.

    The score that reaches both is the posterior P(label = value | prefix) itself (Neyman and Pearson 1933), and
    the expected hits and false alarms are sums of it, so nothing here depends on how the labels fell.

    Args:
        language: Whose posteriors.
        documents: The prefixes end at their words, and for ``ahead`` at all but the last word: what comes after that
            one carries no label. Posteriors are those of the whole language, whatever split the documents are of.
        labels: Columns of labels; all by default.
        ahead: 0 asks for the label of the token just read, 1 for that of the token to come.

    Returns:
        ``label``, ``value``, ``share`` (of the positions that are expected to carry it), ``auroc``, ``f1``, and the
        ``threshold`` on the posterior at which F1 is best.
    """
    names = list(NAMES if labels is None else labels)
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for i in range(len(documents)):
        ids = documents.tokens[i, : int(documents.lengths[i])]
        posterior = language.posterior(ids, names, ahead=ahead, split="all")
        for name in names:
            found[name].append(posterior[name][1:-1].numpy())
    rows = []
    for name in names:
        posterior = np.concatenate(found[name])
        for code, value in enumerate(NAMES[name]):
            p = posterior[:, code]
            if code and p.sum() > 0:
                rows.append({"label": name, "value": value, "share": p.mean(), **_best(p)})
    return pd.DataFrame(rows, columns=["label", "value", "share", "auroc", "f1", "threshold"])


def _best(p: np.ndarray) -> dict[str, float]:
    """Return AUROC, F1 and its threshold of the score ``p`` for a truth that is 1 with probability ``p``."""
    # Positions with the same score cannot be told apart, so they come above a threshold together.
    scores, counts = np.unique(np.round(p, 12), return_counts=True)
    scores, counts = scores[::-1], counts[::-1]
    hits, alarms = np.cumsum(scores * counts), np.cumsum((1 - scores) * counts)
    f1 = 2 * hits / (np.cumsum(counts) + hits[-1])
    best = int(f1.argmax())
    auroc = 1.0
    if alarms[-1] > 0:
        auroc = float(np.trapezoid(np.append(0, hits / hits[-1]), np.append(0, alarms / alarms[-1])))
    return {"auroc": auroc, "f1": float(f1[best]), "threshold": float(scores[best])}
