"""Checkers that know only a salted hash, so that the shipped text does not give the answer away."""

import hashlib
import math
from numbers import Real
from typing import Any

from workbench.exercises.exercise import Checker


def seal(exercise: str, answer: Any, *, within: float | None = None) -> str:
    """Return the digest to write into an exercise; authors call this once and keep the answer to themselves.

    Args:
        exercise: The id of the exercise.
        answer: A text, a number or truth value, or a list or set of them.
        within: For a measured number: how far off an answer may be.
    """
    spelled = _spelled(answer) if within is None else str(_cell(answer, within))
    return hashlib.sha256(f"workbench exercise {exercise}: {spelled}".encode()).hexdigest()


def key(exercise: str, digest: str, *, within: float | None = None) -> Checker:
    """Return the checker for the answer that was sealed as ``digest``.

    Case and spaces of a text do not count, nor does the order of a set. With ``within``, a number is right if
    it is at most that far from the sealed one; up to twice as far may pass, because what is compared is cells
    of that width.

    >>> check = key("demo", seal("demo", "Oslo"))
    >>> check(" oslo ")
    ''
    >>> check("Bergen")
    "'Bergen' is not the answer."
    """

    def checker(answer: Any) -> str:
        if within is None:
            right = seal(exercise, answer) == digest
        else:
            steps = (-within, 0.0, within)
            right = any(seal(exercise, _number(answer) + step, within=within) == digest for step in steps)
        return "" if right else f"{answer!r} is not the answer."

    return checker


def _spelled(answer: Any) -> str:
    if isinstance(answer, str):
        return " ".join(answer.casefold().split())
    if isinstance(answer, Real):  # True is 1 and 2.0 is 2, as in Python
        return f"{float(answer):.12g}"
    if isinstance(answer, list | tuple):
        return "[" + ", ".join(map(_spelled, answer)) + "]"
    if isinstance(answer, set | frozenset):
        return "{" + ", ".join(sorted(map(_spelled, answer))) + "}"
    raise TypeError(
        f"An answer is a text, a number, or a list or set of them, got {type(answer).__name__}; "
        f"of a tensor, give .item() or .tolist()."
    )


def _number(answer: Any) -> float:
    if isinstance(answer, Real):
        return float(answer)
    try:
        return float(str(answer).strip())
    except ValueError:
        raise TypeError(f"The answer must be a number, got {answer!r}.") from None


def _cell(answer: Any, within: float) -> int:
    return math.floor(_number(answer) / within + 0.5)  # not round, which skips cells at halves
