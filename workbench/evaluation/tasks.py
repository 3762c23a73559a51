"""One task, several dictionaries: the three tests of Makelov et al. (2024), beside the supervised dictionaries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from workbench.dictionaries import Dictionary
from workbench.evaluation.interpretation import Coverage, Interpretation, coverage, interpret
from workbench.evaluation.supervised import (
    Approximation,
    Control,
    Place,
    Supervised,
    approximation,
    control,
    supervise,
)

MEANT = 0.8
"""F1 above which a feature is taken for what it is said to mean."""


@dataclass(frozen=True)
class TaskScores:
    """What one dictionary does for a task."""

    approximation: Approximation
    """With all features."""

    meant: Approximation
    """With those alone whose meaning has an F1 above 0.8: how far the meanings explain the model, and not only the
    features."""

    control: Control
    """Exchanging a few features."""

    interpretation: Interpretation
    """What the features mean."""

    coverage: Coverage
    """Which values have features."""


@dataclass(frozen=True)
class TaskScorecard:
    """What several dictionaries do for a task."""

    scores: dict[str, TaskScores]
    """By name; "supervised mean" and "supervised least squares" first."""

    def to_frame(self) -> pd.DataFrame:
        """Return one row per dictionary; its F1 is the mean over the features that are active."""
        rows = {}
        for name, found in self.scores.items():
            verdicts = found.coverage.verdict
            rows[name] = {
                "sufficiency": found.approximation.sufficiency,
                "necessity": found.approximation.necessity,
                "meant_sufficiency": found.meant.sufficiency,
                "meant_necessity": found.meant.necessity,
                **{f"agreement_{k}": float(a) for k, a in zip(found.control.k, found.control.agreement, strict=True)},
                **{f"by_meaning_{k}": float(a) for k, a in zip(found.control.k, found.control.by_meaning, strict=True)},
                "f1": found.interpretation.to_frame()["f1"].mean(),
                **{verdict: verdicts.count(verdict) for verdict in ("found", "split", "occluded", "missing")},
            }
        return pd.DataFrame.from_dict(rows, orient="index")


def task_scorecard(
    dictionaries: Mapping[str, Dictionary],
    train: Place,
    sources: Place,
    targets: Place,
    *,
    k: Sequence[int] = (2, 4, 6),
) -> TaskScorecard:
    """Hold ``dictionaries`` against the supervised ones, and one against the other.

    Among them should be one whose decoder was ``frozen`` as it was drawn and that was trained as the others were: what
    it does as well is not owed to the directions that they found.

    Args:
        dictionaries: By name; autoencoders of the site of the places.
        train: Prompts from which directions, meanings and the mean activation are made.
        sources: Other prompts, on which all is scored.
        targets: For each source a prompt that differs in some attributes, whose activation it is given in part.
        k: How many features are exchanged.
    """
    rows, held_out, mean = train.labelled, sources.labelled, train.acts.mean(0)
    every: dict[str, Dictionary | Supervised] = {
        "supervised mean": supervise(rows),
        "supervised least squares": supervise(rows, estimator="least squares"),
        **dictionaries,
    }
    scores = {}
    for name, dictionary in every.items():
        meanings = interpret(dictionary, rows, held_out)
        scores[name] = TaskScores(
            approximation(dictionary, sources, mean),
            approximation(dictionary, sources, mean, features=meanings.above(MEANT)),
            control(dictionary, sources, targets, train=rows, k=k),
            meanings,
            coverage(dictionary, rows, held_out),
        )
    return TaskScorecard(scores)
