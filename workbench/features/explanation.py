"""What an explanation is, and how to get one from contexts, and predictions from a text, without a language model."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression

from workbench.features.contexts import Shown
from workbench.features.featureset import Example

Predict = Callable[[list[str]], Sequence[float] | np.ndarray]
"""Takes the words of a context and returns a score between 0 and 1 for each: whether the feature is active there."""

Judge = Callable[[str, list[str]], Sequence[float] | np.ndarray]
"""Takes a text and the words of a context and returns the same."""

NAMED = 4
"""Words named of each kind."""


@dataclass(frozen=True)
class Explanation:
    """What a feature is said to stand for."""

    text: str
    """In words."""

    predict: Predict
    """Where the feature should be active, if this is right."""


def template(feature: Shown) -> Explanation:
    """Return the words that tell best where a feature is active: its own, the one before, and any before.

    A logistic regression with an L1 penalty on the tokens of the shown contexts keeps few of them; the text names the
    strongest.
    """
    contexts: list[Example] = [*feature.top, *feature.sample, *feature.silent]
    active = np.array([act > 0 for one in contexts for act in one.acts])
    if active.all() or not active.any():
        raise ValueError(f"{len(contexts)} contexts show it active on {active.sum()} of {len(active)} tokens")
    vectorizer = DictVectorizer()
    seen = vectorizer.fit_transform(cue for one in contexts for cue in _cues(one.words))
    # liblinear penalises the intercept too, but not where it is scaled up.
    model = LogisticRegression(
        l1_ratio=1.0, solver="liblinear", C=1.0, class_weight="balanced", intercept_scaling=100.0, random_state=0
    )
    model.fit(seen, active)

    def predict(words: list[str]) -> np.ndarray:
        return model.predict_proba(vectorizer.transform(_cues(words)))[:, 1]

    return Explanation(_told(vectorizer.get_feature_names_out(), model.coef_[0]), predict)


def mentions(text: str, words: list[str]) -> list[float]:
    """Return 1 for each word that the text mentions, else 0.

    >>> mentions('on "cat" and dog', [" Cat", " s", "dog"])
    [1.0, 0.0, 1.0]
    """
    said = set(_words(text))
    return [float(bool(mine := _words(word)) and said.issuperset(mine)) for word in words]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\s.,;:!?\"'()]+", text.casefold())


def _cues(words: list[str]) -> Iterator[dict[str, int]]:
    """Yield what may tell whether the feature is active on each word."""
    for i, word in enumerate(words):
        since = {f"since {one!r}": 1 for one in words[:i]}
        yield since | {f"on {word!r}": 1} | ({f"after {words[i - 1]!r}": 1} if i else {})


def _told(cues: Sequence[str], weights: np.ndarray) -> str:
    """Return the strongest cues of each kind in words."""
    strongest = [cues[i].split(" ", 1) for i in (-weights).argsort() if weights[i] > 0]
    kinds = {kind: [word for one, word in strongest if one == kind][:NAMED] for kind in ("on", "after", "since")}
    return "; ".join(f"{kind} {', '.join(words)}" for kind, words in kinds.items() if words) or "nothing in particular"
