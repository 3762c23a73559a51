"""The tracing engine: one way to run a family's program, whoever asks.

A family is a small probabilistic program written as ordinary Python. It makes its choices and says its words
through a *tracer*, so the same lines of code generate documents (:class:`Sampler`), are replayed with given
choices (:class:`Recorder`), and are enumerated exactly (:func:`arcs`). Nothing about a family is written twice.

A program is a chain of *steps*: a step is a function ``step(tracer, *args)`` that returns ``None`` at the end
of the document or ``(next_step, args)`` with hashable ``args``. All that a later step may know of the past is
in those arguments, which is what makes exact filtering cheap: two executions that reach the same step with the
same arguments have the same future.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Any, NamedTuple

from typing_extensions import override

from workbench.language.labels import LABELS
from workbench.language.splits import Grid, Split

Step = Callable[..., "tuple[Step, tuple[Hashable, ...]] | None"]
"""One step of a program: says some words, then names the next step and its arguments."""


class Tracer(ABC):
    """What a program sees of whoever runs it."""

    @abstractmethod
    def choose(
        self,
        name: str,
        options: Sequence[Any],
        weights: Sequence[float] | None = None,
        *,
        held: Grid | None = None,
    ) -> Any:
        """Return one of ``options``.

        ``weights`` are relative and default to equal. ``held`` names the grid of which this is the next slot:
        the grid then supplies options' weights, so that its cells stay inside the split that is running.
        """

    @abstractmethod
    def say(self, word: str, **labels: str) -> None:
        """Emit ``word``; ``labels`` are this token's, added to those of :meth:`scope`."""

    @abstractmethod
    def scope(self, **labels: str) -> None:
        """Set the labels that every later word of this step carries; a new step starts without any."""


class Symbols:
    """Words with their labels, interned, so that a document in the making is a list of small integers."""

    def __init__(self, vocabulary: dict[str, int]) -> None:
        self.vocabulary = vocabulary
        self.ids: dict[tuple, int] = {}
        self.tokens: list[int] = []
        self.labels: list[dict[str, str]] = []

    def intern(self, word: str, labels: dict[str, str]) -> int:
        """Return the number of ``word`` carrying ``labels``, checking both against what the language declares."""
        key = (word, *labels.items())
        found = self.ids.get(key)
        if found is not None:
            return found
        if word not in self.vocabulary:
            raise ValueError(f"the word {word!r} is not in the vocabulary; add it to the lexicon.")
        for column, value in labels.items():
            if value not in LABELS.get(column, ()):
                raise ValueError(f"the label {column}={value!r} is not declared in language.labels.LABELS.")
        self.ids[key] = len(self.tokens)
        self.tokens.append(self.vocabulary[word])
        self.labels.append(labels)
        return self.ids[key]


class Sampler(Tracer):
    """Run programs with random choices; :attr:`out` collects the symbols said, each carrying ``base`` labels."""

    def __init__(self, symbols: Symbols, split: Split, rng: Random, base: dict[str, str]) -> None:
        self.symbols, self.rng, self.base = symbols, rng, base
        self.split: Split = split
        self.out: list[int] = []
        self._ids: dict[tuple, int] = {}  # (scope, word, labels) → symbol: one look-up for a word said before
        self._cumulative: dict[tuple[float, ...], list[float]] = {}
        self._scope: dict[str, str] = base
        self._scope_key: tuple = ()
        self._cells: dict[Grid, tuple[int, ...]] = {}

    @override
    def choose(
        self,
        name: str,
        options: Sequence[Any],
        weights: Sequence[float] | None = None,
        *,
        held: Grid | None = None,
    ) -> Any:
        if held is not None:
            cell = self._cells.get(held, ())
            cumulative = held.cumulative(cell, self.split)
            index = bisect_right(cumulative, self.rng.random() * cumulative[-1])
            self._cells[held] = (*cell, index)
            return options[index]
        if weights is None:
            return options[int(self.rng.random() * len(options))]
        key = tuple(weights)
        cumulative = self._cumulative.get(key)
        if cumulative is None:
            cumulative = self._cumulative[key] = list(accumulate(key))
        return options[bisect_right(cumulative, self.rng.random() * cumulative[-1])]

    @override
    def say(self, word: str, **labels: str) -> None:
        key = (self._scope_key, word, *labels.values(), *labels)
        symbol = self._ids.get(key)
        if symbol is None:
            symbol = self._ids[key] = self.symbols.intern(word, self._scope | labels)
        self.out.append(symbol)

    @override
    def scope(self, **labels: str) -> None:
        self._scope = self.base | labels
        self._scope_key = (*labels.values(), *labels)

    def run(self, step: Step, *args: Hashable) -> None:
        """Run a program from ``step`` to its end."""
        following: tuple[Step, tuple] | None = (step, args)
        while following is not None:
            self._cells.clear()
            self.scope()
            following = following[0](self, *following[1])


def _weights(
    options: Sequence[Any], weights: Sequence[float] | None, held: Grid | None, cell: tuple[int, ...], split: Split
) -> Sequence[float]:
    """Return the relative weights of ``options``, wherever they come from."""
    return held.weights(cell, split) if held is not None else weights or [1.0] * len(options)


@dataclass(frozen=True)
class Choice:
    """One choice a program made."""

    name: str
    """The name its program gives it; a name may occur several times in a document."""

    options: tuple[Any, ...]
    """What could have been chosen, in the program's order."""

    possible: tuple[Any, ...]
    """Those of them that the language allows at that moment, in one split or the other."""

    probabilities: tuple[float, ...]
    """Their probabilities at that moment, in the split that ran."""

    index: int
    """Which was chosen."""

    position: int
    """Position in the document of the first token said after it (BOS is 0)."""

    @property
    def value(self) -> Any:
        """The option chosen."""
        return self.options[self.index]

    @property
    def free(self) -> bool:
        """Whether another option had a positive probability."""
        return sum(p > 0 for p in self.probabilities) > 1


class Recorder(Sampler):
    """A sampler that also remembers its choices, and lets ``decide`` make them.

    ``decide(name, options, possible)`` returns the index of the option to take, or None to have it drawn;
    ``possible`` says which options have a probability here.
    """

    def __init__(
        self,
        symbols: Symbols,
        split: Split,
        rng: Random,
        base: dict[str, str],
        decide: Callable[[str, Sequence[Any], Sequence[bool]], int | None],
    ) -> None:
        super().__init__(symbols, split, rng, base)
        self.decide = decide
        self.choices: list[Choice] = []

    @override
    def choose(
        self,
        name: str,
        options: Sequence[Any],
        weights: Sequence[float] | None = None,
        *,
        held: Grid | None = None,
    ) -> Any:
        cell = self._cells.get(held, ()) if held is not None else ()
        raw = _weights(options, weights, held, cell, self.split)
        index = self.decide(name, options, [w > 0 for w in raw])
        if index is None:
            index = options.index(super().choose(name, options, weights, held=held))
        elif held is not None:
            self._cells[held] = (*cell, index)
        probabilities = tuple(w / sum(raw) for w in raw)
        # BOS stands before the first word, hence the one.
        allowed = _weights(options, weights, held, cell, "all")
        possible = tuple(option for option, w in zip(options, allowed, strict=True) if w > 0)
        self.choices.append(Choice(name, tuple(options), possible, probabilities, index, len(self.out) + 1))
        return options[index]


class _Stop(Exception):
    """Raised inside a program to leave it: the replay has seen what it came for."""


class _Replay(Tracer):
    """Run one step with its first choices given as indices, up to the first thing that is not given.

    That is either a choice (its probabilities are left in :attr:`pending`) or a word beyond the first ``skip``
    (left in :attr:`said`).
    """

    def __init__(self, split: Split, given: tuple[int, ...], skip: int) -> None:
        self.split: Split = split
        self.given, self.skip = given, skip
        self.pending: list[float] | None = None
        self.said: tuple[str, dict[str, str]] | None = None
        self._scope: dict[str, str] = {}
        self._cells: dict[Grid, tuple[int, ...]] = {}
        self._made = 0

    @override
    def choose(
        self,
        name: str,
        options: Sequence[Any],
        weights: Sequence[float] | None = None,
        *,
        held: Grid | None = None,
    ) -> Any:
        cell = self._cells.get(held, ()) if held is not None else ()
        if self._made == len(self.given):
            raw = _weights(options, weights, held, cell, self.split)
            total = sum(raw)
            self.pending = [w / total for w in raw]
            raise _Stop
        index = self.given[self._made]
        self._made += 1
        if held is not None:
            self._cells[held] = (*cell, index)
        return options[index]

    @override
    def say(self, word: str, **labels: str) -> None:
        if self.skip == 0:
            self.said = (word, self._scope | labels)
            raise _Stop
        self.skip -= 1

    @override
    def scope(self, **labels: str) -> None:
        self._scope = labels

    def run(self, step: Step, args: tuple[Hashable, ...]) -> tuple[Step, tuple] | None:
        try:
            return step(self, *args)
        except _Stop:
            return None


class State(NamedTuple):
    """One consistent execution: where a program is, with all that its future depends on."""

    step: Step
    args: tuple[Hashable, ...]
    trace: tuple[int, ...] = ()
    """Indices chosen so far within this step."""
    said: int = 0
    """Words said so far within this step."""


class Arc(NamedTuple):
    """One way for an execution to say its next word."""

    probability: float
    word: str | None
    """None at the end of the document."""
    labels: dict[str, str]
    state: State | None


def arcs(state: State, split: Split) -> Iterator[Arc]:
    """Enumerate every next word of ``state`` with its probability; the probabilities sum to one."""
    pending = [(1.0, state)]
    while pending:
        weight, at = pending.pop()
        replay = _Replay(split, at.trace, at.said)
        following = replay.run(at.step, at.args)
        if replay.said is not None:
            yield Arc(weight, *replay.said, at._replace(said=at.said + 1))
        elif replay.pending is not None:
            pending.extend(
                (weight * p, at._replace(trace=(*at.trace, i))) for i, p in enumerate(replay.pending) if p > 0
            )
        elif following is not None:
            pending.append((weight, State(*following)))
        else:
            yield Arc(weight, None, {}, None)
