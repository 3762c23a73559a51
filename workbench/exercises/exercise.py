"""A question with a checker and three hints, usable with and without a widget."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Checker = Callable[[Any], str]
"""Takes an answer and returns what is wrong with it in a sentence, nothing if it is right."""


@dataclass(frozen=True)
class Verdict:
    """What a checker said of an answer; true if the answer is right, and prints as its line."""

    right: bool
    """Whether the answer is right."""

    line: str
    """The same in a sentence."""

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return self.line


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One exercise of a notebook.

    >>> even = Exercise(
    ...     id="demo",
    ...     question="Name an even number.",
    ...     checker=lambda n: f"{n} is odd." if n % 2 else "",
    ...     hints=("What is twice a whole number?", "Double something.", "Double 1."),
    ... )
    >>> even.check(3)
    Not yet: 3 is odd. For help: .hint(1), .hint(2), .hint(3).
    >>> even.check(4)
    Right.
    """

    id: str
    """Unique among all exercises; salts the hash of the answer."""

    question: str
    """What is asked, in plain text."""

    checker: Checker
    """Says what is wrong with an answer."""

    hints: tuple[str, str, str]
    """A nudge, a hint, and nearly the answer."""

    choices: tuple[str, ...] = ()
    """The answers to choose from; any text or number if there are none."""

    def check(self, answer: Any) -> Verdict:
        """Say whether ``answer`` is right."""
        if self.choices and answer not in self.choices:
            raise ValueError(f"The answer must be one of {', '.join(map(repr, self.choices))}, got {answer!r}.")
        problem = self.checker(answer)
        if problem:
            return Verdict(False, f"Not yet: {problem} For help: .hint(1), .hint(2), .hint(3).")
        return Verdict(True, "Right.")

    def hint(self, step: int) -> str:
        """Return hint 1, 2 or 3; each says more than the one before."""
        if step not in (1, 2, 3):
            raise ValueError(f"There are hints 1, 2 and 3, got {step}.")
        return self.hints[step - 1]
