"""Predict, then check: a guess is committed before the answer is shown.

``Exercise.check`` does the marking; this is only its widget.
"""

from html import escape
from typing import Any

import ipywidgets
from typing_extensions import override

from workbench.exercises.exercise import Exercise, Verdict
from workbench.views.base import Panel
from workbench.views.jobs import guarded
from workbench.views.notes import NotesView


def predict(exercise: Exercise, *, reveal: str = "") -> "PredictionPanel":
    """Return the widget of ``exercise``.

    Args:
        exercise: What is asked.
        reveal: What was measured, in a sentence; it stays in the kernel until a guess is committed.
    """
    return PredictionPanel(exercise, reveal)


class PredictionPanel(Panel):
    """A question and room for one guess; the first guess that is committed stands. Hints are the notebook's."""

    def __init__(self, exercise: Exercise, reveal: str = "") -> None:
        self.exercise = exercise
        self.prediction: str | None = None
        """The guess, once it is committed."""
        self.verdict: Verdict | None = None
        """What the checker said of it."""
        self._reveal = reveal

        self.question = NotesView()
        self.question.add("question", exercise.question)
        self.notes = NotesView()
        if exercise.choices:
            self.guess = ipywidgets.RadioButtons(
                description="Your prediction", options=exercise.choices, value=None, layout={"width": "auto"}
            )
        else:
            self.guess = ipywidgets.Text(description="Your prediction")
        self.commit = ipywidgets.Button(description="Commit", tooltip="Commit your prediction; it then stands")
        self.commit.on_click(self._on_commit)
        super().__init__([self.question, self.guess, self.commit, self.notes], self.notes)
        self.add_class("workbench-prediction")

    @guarded
    def _on_commit(self, button: ipywidgets.Button) -> None:
        if not self.guess.value:
            raise ValueError("Make a prediction first, then commit it.")
        self.verdict = self.exercise.check(self.guess.value)  # may say that this is no possible answer
        self.prediction = self.guess.value
        self.guess.disabled = self.commit.disabled = True
        said = "right" if self.verdict else "not so"
        self.notes.add("right" if self.verdict else "wrong", f"You predicted {self.prediction!r}: {said}.")
        if self._reveal:
            self.notes.add("plain", self._reveal)

    @override
    def describe(self) -> str:
        return f"{self.exercise.question} {self.notes.describe() or 'No prediction is committed yet.'}"

    @override
    def snapshot(self) -> dict[str, Any]:
        right = None if self.verdict is None else self.verdict.right
        return {"exercise": self.exercise.id, "prediction": self.prediction, "right": right}

    @override
    def static_html(self) -> str:
        choices = "".join(f"<li>{escape(choice)}</li>" for choice in self.exercise.choices)
        return self.question.static_html() + (f"<ul>{choices}</ul>" if choices else "") + self.notes.static_html()
