"""Explanations of features, and how well they predict where a feature is active.

1. Each document of the store is shown to the explainer or held out, drawn by the seed.
2. The explainer answers with an ``Explanation``, which can predict, or with a text, from which the judge predicts.
3. Held-out contexts, as many active as silent, give the scores: detection (which contexts are active) and fuzzing
   (which of two markings of an active context is right; both Paulo et al. 2024, arXiv 2410.13928).
4. Beside each score stands the same of another feature's explanation on these contexts (shuffled labels), and of as
   many random words: in another field, thousands of descriptions did no better than those (Yan et al. 2023, arXiv
   2308.03685).

What goes wrong with one feature is written beside it, and the others go on.
"""

import random
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from workbench.features.contexts import Contexts, Shown
from workbench.features.explanation import Explanation, Judge, mentions, template
from workbench.features.feature import Example
from workbench.features.featureset import FeatureSet
from workbench.features.scoring import Prediction, Scored, accuracy, auroc, beside, detection, fuzzing

Explainer = Callable[[Shown], Explanation | str]
"""Takes a feature of which only the shown contexts can be seen."""

LEAST = 5
"""Held-out contexts of either kind without which nothing is scored."""


@dataclass(frozen=True)
class Explained:
    """One feature, what it was said to stand for, and how well that predicts it."""

    feature: int
    text: str
    """The explanation; empty where there is none."""

    contexts: int
    """Held-out contexts scored, half of them active."""

    detection: Prediction | None
    """Of which contexts it is active in; None where there is a problem."""

    fuzzing: Prediction | None
    """Of which tokens it is active on, within a context; None also where it is active on all."""

    problem: str = ""
    """Why it has no scores."""


@dataclass(frozen=True)
class Explanations:
    """Explanations of features, with their scores; ``explanations[number]`` is that of one feature."""

    features: tuple[Explained, ...]
    """In the order asked for."""

    def __getitem__(self, feature: int) -> Explained:
        for one in self.features:
            if one.feature == feature:
                return one
        known = ", ".join(str(one.feature) for one in self.features[:20])
        raise KeyError(f"Feature {feature} was not explained; those that were: {known}.")

    def __iter__(self) -> Iterator[Explained]:
        return iter(self.features)

    def __len__(self) -> int:
        return len(self.features)

    def to_frame(self) -> pd.DataFrame:
        """Return a line for each score: its 95 % interval and its controls, or what the problem was."""
        lines = []
        for one in self.features:
            told = {"feature": one.feature, "explanation": one.text, "contexts": one.contexts, "problem": one.problem}
            tests = {"detection": one.detection, "fuzzing": one.fuzzing}
            scores = [
                {"test": name, "measure": measure, **vars(score)}
                | {"shuffled": score.shuffled.value, "random": score.random.value}
                for name, test in tests.items()
                if test is not None
                for measure, score in (("auroc", test.auroc), ("accuracy", test.accuracy))
            ]
            lines += [told | score for score in scores or [{}]]
        order = ["feature", "explanation", "test", "measure", "value", "low", "high", "shuffled", "random"]
        return pd.DataFrame(lines).reindex(columns=[*order, "contexts", "problem"])


class _Failure(Exception):
    """What went wrong with one feature."""


def explain(
    features: FeatureSet,
    numbers: Sequence[int],
    *,
    explainer: Explainer = template,
    judge: Judge = mentions,
    timeout: float | int = 60,
    seed: int = 0,
) -> Explanations:
    """Explain features by half of the documents and score the explanations on the other half.

    An explainer or a judge that raises, takes too long or answers nonsense leaves a ``problem`` beside the feature.

    Args:
        features: With their dictionary and store, as ``describe`` returns them.
        numbers: Which; two at least, for each explanation is also held against the contexts of another feature.
        explainer: Returns an ``Explanation``, or a text for the judge. The default names the words on, after and since
            which the feature is active; ``asked`` makes an explainer and a judge of a language model.
        judge: ``judge(text, words)`` says how well each word of a context fits a text, from 0 to 1. The default looks
            for the words that the text mentions.
        timeout: Seconds for each answer of the explainer, and for the judge's on each context.
        seed: Of the halves, the contexts and the controls.
    """
    numbers = [features[number].number for number in ([numbers] if isinstance(numbers, int) else numbers)]
    if len(set(numbers)) < 2 or len(set(numbers)) < len(numbers):
        raise ValueError(
            f"explain takes two or more different features, got {numbers}; each explanation is also held against "
            "the contexts of another feature."
        )
    if not timeout > 0:
        raise ValueError(f"timeout must be above 0 seconds, got {timeout}.")
    run = _Run(Contexts(features, seed), judge, float(timeout), seed)
    texts, problems = dict.fromkeys(numbers, ""), {}
    found: dict[int, tuple[Explanation, Scored, Scored]] = {}
    for number in numbers:
        try:
            active, silent = run.held_out(number)  # what cannot be scored is not worth an answer
            explanation = run.explained(explainer, number)
            texts[number] = explanation.text
            found[number] = explanation, run.predicted(explanation, active), run.predicted(explanation, silent)
        except _Failure as failure:
            problems[number] = str(failure)
    order = random.Random(seed).sample(list(found), len(found))
    done = {}
    for number, other in zip(order, [*order[1:], *order[:1]], strict=True):
        try:
            if other == number:
                raise _Failure("no other feature has an explanation to hold against its contexts")
            done[number] = run.scored(number, *found[number], found[other][0])
        except _Failure as failure:
            problems[number] = str(failure)
    failed = {n: Explained(n, texts[n], 0, None, None, problem) for n, problem in problems.items()}
    return Explanations(tuple((done | failed)[number] for number in numbers))


class _Run:
    """What the features of one call share."""

    def __init__(self, contexts: Contexts, judge: Judge, timeout: float, seed: int) -> None:
        self.contexts, self.judge, self.timeout, self.seed = contexts, judge, timeout, seed

    def held_out(self, number: int) -> tuple[list[Example], list[Example]]:
        """Return as many active as silent contexts."""
        active, silent = self.contexts.active(number), self.contexts.silent(number, held=True)
        n = min(len(active), len(silent))
        if n < LEAST:
            raise _Failure(
                f"active in {len(active)} and silent in {len(silent)} held-out contexts; {LEAST} of either are needed"
            )
        return active[:n], silent[:n]

    def explained(self, explainer: Explainer, number: int) -> Explanation:
        """Return what the explainer answers, a text with the judge's predictions."""
        answer = self.answer("explainer", lambda: explainer(Shown(self.contexts, number)))
        if isinstance(answer, str) and answer.strip():
            return Explanation(answer, partial(self.judge, answer))
        if isinstance(answer, Explanation) and isinstance(answer.text, str):
            return answer
        got = "an empty text" if isinstance(answer, str) else type(answer).__name__
        raise _Failure(f"the explainer returned {got}, neither an Explanation nor a text")

    def scored(self, number: int, explanation: Explanation, on: Scored, off: Scored, other: Explanation) -> Explained:
        """Return the scores of an explanation, of another feature's and of random words."""
        active, silent = self.held_out(number)
        words = self.contexts.words
        drawn = random.Random(f"{self.seed} {number}").sample(words, min(len(explanation.text.split()), len(words)))
        chance = ", ".join(word.strip() for word in drawn)
        controls = other, Explanation(chance, partial(self.judge, chance))
        predicted = [(on, off), *((self.predicted(one, active), self.predicted(one, silent)) for one in controls)]
        tests = (
            _prediction([detection(on, off) for on, off in predicted]),
            _prediction([fuzzing(on, active, self.seed + number) for on, _ in predicted]),
        )
        return Explained(number, explanation.text, 2 * len(active), *tests)

    def predicted(self, explanation: Explanation, contexts: Sequence[Example]) -> Scored:
        """Return what an explanation predicts in each context."""
        found = []
        for one in contexts:
            words = list(one.words)
            scores = self.answer("judge", lambda: np.asarray(explanation.predict(words), dtype=float))  # noqa: B023
            if scores.shape != (len(words),) or not ((scores >= 0) & (scores <= 1)).all():
                raise _Failure(f"the judge returned no number from 0 to 1 for each of {len(words)} words")
            found.append(scores)
        return found

    def answer(self, who: str, ask: Callable[[], Any]) -> Any:
        """Return what somebody else's code answers, if it does so in time."""
        box: list[tuple[bool, Any]] = []

        def work() -> None:
            try:
                box.append((True, ask()))
            except BaseException as error:  # also an exit: it is not ours to end the run
                box.append((False, error))

        # A thread cannot be ended from outside; as a daemon it is left behind without keeping Python alive.
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(self.timeout)
        if not box:
            raise _Failure(f"the {who} gave no answer within {self.timeout:g} s")
        well, answer = box[0]
        if not well:
            raise _Failure(f"the {who} raised {type(answer).__name__}: {textwrap.shorten(str(answer), 200)}")
        return answer


def _prediction(scores: list[tuple[np.ndarray, np.ndarray]]) -> Prediction | None:
    """Return how well an explanation's scores tell the first kind from the second, beside those of its controls."""
    if not len(scores[0][0]):
        return None
    return Prediction(*(beside(*(measure(*pair) for pair in scores)) for measure in (auroc, accuracy)))
