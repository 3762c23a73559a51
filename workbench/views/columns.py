"""Texts side by side, each with a share that is drawn as a bar, growing token by token."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import traitlets
from typing_extensions import override

from workbench.views.base import View, es_module, style_sheet


@dataclass(frozen=True)
class Column:
    """One text and its count."""

    title: str
    """What was done to get it."""

    pieces: list[tuple[str, bool]]
    """What was written after the prompt, piece by piece, and whether the piece is marked."""

    share: float | None
    """Length of the bar, 0 to 1; no bar if None."""

    readout: str
    """The count in words."""

    @property
    def text(self) -> str:
        """The pieces joined."""
        return "".join(piece for piece, _ in self.pieces)


@dataclass(frozen=True)
class Shown:
    """What the view shows at one time."""

    caption: str = ""
    """One line above: the settings."""

    prompt: str = ""
    """What every text begins with."""

    columns: Sequence[Column] = ()
    """From left to right."""

    status: str = ""
    """One line below, read out when it changes."""


class ColumnsView(View):
    """Texts side by side; marked pieces are underlined. ``show`` replaces all of it at once."""

    shown = traitlets.Dict().tag(sync=True)

    _esm = es_module("columns.js")
    _css = style_sheet("columns.css")

    def __init__(self) -> None:
        super().__init__(shown=asdict(Shown()))
        self.recorded: list[Shown] = []
        """Further states, one to be chosen with a slider, in an exported file only."""

    def show(self, shown: Shown) -> None:
        """Show this instead."""
        self.shown = asdict(shown)

    @override
    def export_state(self) -> dict[str, Any]:
        return {**self.state(), "recorded": [asdict(shown) for shown in self.recorded]}

    @override
    def describe(self) -> str:
        counts = [f"{column['title']}: {column['readout']}" for column in self.shown["columns"]]
        return "; ".join([self.shown["caption"], *counts] if counts else ["nothing written yet"])

    @override
    def static_html(self) -> str:
        shown = self.shown
        columns = "".join(_static_column(column, shown["prompt"]) for column in shown["columns"])
        return (
            f'{self.static_error()}<div style="margin:0 0 6px">{escape(shown["caption"])}</div>'
            f'<div style="display:flex;flex-wrap:wrap;gap:20px">{columns}</div>'
            f'<div style="margin:8px 0 0;font-size:12px;opacity:0.75">{escape(shown["status"])}</div>'
        )


def _static_column(column: dict[str, Any], prompt: str) -> str:
    text = "".join(_static_piece(piece, marked) for piece, marked in column["pieces"])
    bar = ""
    if column["share"] is not None:
        bar = (
            '<div style="height:6px;margin:8px 0 4px;background-color:rgba(128,128,128,0.25)">'
            f'<div style="height:6px;width:{100 * column["share"]:.0f}%;background-color:rgb(0,114,178)"></div></div>'
        )
    return (
        '<div style="flex:1 1 220px;min-width:200px">'
        f'<div style="font-weight:600;border-bottom:1px solid rgba(128,128,128,0.4)">{escape(column["title"])}</div>'
        f'<div style="margin:6px 0 0"><span style="opacity:0.7">{escape(prompt)}</span>{text}</div>{bar}'
        f'<div style="font-size:12px">{escape(column["readout"])}</div></div>'
    )


def _static_piece(piece: str, marked: bool) -> str:
    word = piece.lstrip()
    if not marked:
        return escape(piece)
    style = "background-color:rgba(0,114,178,0.3);border-bottom:2px solid rgb(0,114,178)"
    return f'{escape(piece[: len(piece) - len(word)])}<span style="{style}">{escape(word)}</span>'
