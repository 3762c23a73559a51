"""What an explanation is, and how to get one from contexts, and predictions from a text, without a language model."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from workbench.features.contexts import Shown
from workbench.features.feature import Example

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
    # Not at the top: they would load with every feature.
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    contexts: list[Example] = [*feature.top, *feature.sample, *feature.silent]
    active = np.array([act > 0 for one in contexts for act in one.acts])
    if active.all() or not active.any():
        raise ValueError(f"{len(contexts)} contexts show it active on {active.sum()} of {len(active)} tokens")
    vectorizer = CountVectorizer(analyzer=list)  # type: ignore[arg-type]
    seen: Any = vectorizer.fit_transform(at for one in contexts for at in _cues(one.words))
    # liblinear penalises the intercept too, but not where it is scaled up.
    model: Any = LogisticRegression(
        l1_ratio=1.0, solver="liblinear", C=1.0, class_weight="balanced", intercept_scaling=100, random_state=0
    )
    model.fit(seen, active)
    cues = vectorizer.get_feature_names_out().tolist()
    weights = {cue: weight for cue, weight in zip(cues, model.coef_[0].tolist(), strict=True) if weight}
    intercept = float(model.intercept_[0])

    def predict(words: list[str]) -> np.ndarray:
        return expit([intercept + sum(weights.get(cue, 0.0) for cue in at) for at in _cues(words)])

    # Named are those that account for most of the shown activity, which a rare word does not, whatever its weight.
    times = dict(zip(cues, np.asarray(seen[active].sum(0))[0], strict=True))
    return Explanation(_told({cue: weight * times[cue] for cue, weight in weights.items()}), predict)


def mentions(text: str, words: list[str]) -> list[float]:
    """Return 1 for each word that the text mentions, else 0.

    >>> mentions('on "cat" and dog', [" Cat", " s", "dog"])
    [1.0, 0.0, 1.0]
    """
    said = set(_words(text))
    return [float(bool(mine := _words(word)) and said.issuperset(mine)) for word in words]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\s.,;:!?\"'()]+", text.casefold())


def _cues(words: list[str]) -> Iterator[set[str]]:
    """Yield what may tell whether the feature is active on each word."""
    for i, word in enumerate(words):
        yield {
            f"on {word!r}",
            *(f"after {one!r}" for one in words[i - 1 : i]),
            *(f"since {one!r}" for one in words[:i]),
        }


def _told(strengths: dict[str, float]) -> str:
    """Return the strongest cues of each kind in words."""
    strongest = [cue.split(" ", 1) for cue in sorted(strengths, key=lambda cue: -strengths[cue]) if strengths[cue] > 0]
    kinds = {kind: [word for one, word in strongest if one == kind][:NAMED] for kind in ("on", "after", "since")}
    return "; ".join(f"{kind} {', '.join(words)}" for kind, words in kinds.items() if words) or "nothing in particular"
