"""Short marked paragraphs: a question, a verdict, what was measured."""

from html import escape
from typing import Any, Literal

import traitlets
from typing_extensions import override

from workbench.views.base import View, es_module, style_sheet

Kind = Literal["question", "right", "wrong", "plain"]

EDGES = {"question": "", "right": "#009e73", "wrong": "#d55e00", "plain": "#999999"}
"""Colour of the edge of each kind; the words say the same, so that colour is never alone."""


class NotesView(View):
    """Paragraphs, each with a kind; read out when one is added."""

    notes = traitlets.List(traitlets.Dict()).tag(sync=True)

    _esm = es_module("notes.js")
    _css = style_sheet("notes.css")

    def add(self, kind: Kind, text: str) -> None:
        """Add a paragraph."""
        self.notes = [*self.notes, {"kind": kind, "text": text, "edge": EDGES[kind]}]

    @override
    def describe(self) -> str:
        return " ".join(note["text"] for note in self.notes)

    @override
    def static_html(self) -> str:
        return self.static_error() + "".join(map(_static_note, self.notes))


def _static_note(note: dict[str, Any]) -> str:
    edge = f"border-left:3px solid {note['edge']};padding:2px 10px" if note["edge"] else "font-weight:600"
    return f'<div style="margin:0 0 8px;{edge}">{escape(note["text"])}</div>'
