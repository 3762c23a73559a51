"""Numbers that change, each with a small curve of how it came there; a row of them for each thing measured."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import traitlets
from typing_extensions import override

from workbench.views.base import View, es_module, style_sheet

BLOCKS = "▁▂▃▄▅▆▇█"
"""A static curve, from low to high."""

WIDTH = 16
"""How many of them, at most."""


@dataclass(frozen=True)
class Reading:
    """One number and its past."""

    label: str
    """What it is."""

    value: str
    """What it is now."""

    points: Sequence[tuple[float, float]] = ()
    """The curve in the unit square: from left to right, from bottom to top."""

    told: str = ""
    """The curve in words."""


@dataclass(frozen=True)
class Row:
    """The readings of one thing."""

    name: str
    """Which."""

    readings: Sequence[Reading]
    """The same quantities in every row."""


@dataclass(frozen=True)
class Seen:
    """What the view shows at one time."""

    status: str = ""
    """What is going on, read out when it changes."""

    count: str = ""
    """How far it is, in words."""

    share: float = 0.0
    """The same, 0 to 1."""

    rows: Sequence[Row] = ()
    """What is measured of each."""

    common: Sequence[Reading] = ()
    """What is measured of all together."""


class CurvesView(View):
    """Numbers with their curves: as tiles if they are of one thing, else as a table. ``show`` replaces all at once."""

    seen = traitlets.Dict().tag(sync=True)

    _esm = es_module("curves.js")
    _css = style_sheet("curves.css")

    def __init__(self) -> None:
        super().__init__(seen=asdict(Seen()))

    def show(self, seen: Seen) -> None:
        """Show this instead."""
        self.seen = asdict(seen)

    @override
    def describe(self) -> str:
        told = [
            " ".join([f"{row['name']}:", *(f"{one['label']} {one['value']}" for one in row["readings"])])
            for row in self.seen["rows"]
        ]
        return "; ".join([self.seen["count"] or "nothing measured yet", *told])

    @override
    def static_html(self) -> str:
        # Without what is common, which tells of the machine and the moment: a picture is the same on every run.
        seen = self.seen
        labels = [one["label"] for one in seen["rows"][0]["readings"]] if seen["rows"] else []
        style = f"{_CELL};font-weight:400;opacity:0.75"
        head = "".join(f'<th style="{style}">{escape(label)}</th>' for label in ["", *labels])
        rows = "".join(map(_static_row, seen["rows"]))
        return (
            f"{self.static_error()}<div>{escape(' · '.join(filter(None, (seen['count'], seen['status']))))}</div>"
            f'<table style="border-collapse:collapse;margin:6px 0"><tr>{head}</tr>{rows}</table>'
        )


_CELL = "text-align:left;padding:4px 18px 4px 0;border:0;background:none"


def _static_row(row: dict[str, Any]) -> str:
    cells = "".join(
        f'<td style="{_CELL};vertical-align:top">{escape(one["value"])}'
        f'<div style="color:rgb(0,114,178);line-height:1;letter-spacing:-1px">{blocks(one["points"])}</div></td>'
        for one in row["readings"]
    )
    return f'<tr><th style="{_CELL};font-weight:600;vertical-align:top">{escape(row["name"])}</th>{cells}</tr>'


def curve(values: Sequence[tuple[float, float]], *, log: bool = False) -> list[tuple[float, float]]:
    """Return points with heights from 0 to 1: shares of the largest, or between least and largest by the logarithm."""
    heights = [(x, math.log(max(y, 1e-12)) if log else y) for x, y in values if math.isfinite(y)]
    low = min((y for _, y in heights), default=0.0) if log else 0.0
    span = max((y for _, y in heights), default=0.0) - low
    return [(round(x, 4), round((y - low) / span, 4) if span else 0.0) for x, y in heights]


def blocks(points: Sequence[tuple[float, float]]) -> str:
    """Return a curve as a line of text."""
    columns: dict[int, float] = {min(WIDTH - 1, int(x * WIDTH)): y for x, y in points}
    return "".join(BLOCKS[round(y * (len(BLOCKS) - 1))] for y in columns.values())
