"""A scorecard as a table: each number on the way from what is had for nothing to the best there can be."""

import math
from html import escape
from typing import Any

import pandas as pd
import traitlets
from typing_extensions import override

from workbench.evaluation import Measurement, Metric, Scorecard
from workbench.evaluation.metrics import RANDOM
from workbench.views.base import View, es_module, legible, style_sheet

LEGEND = (
    "Each line runs from what is had for nothing, on the left, to the best there can be, on the right, or the best "
    "here where nobody knows it. Choose a metric to read what it means."
)

_CELL = "text-align:left;padding:4px 18px 4px 0;border:0;background:none;vertical-align:top"


def scorecard_view(card: Scorecard) -> "ScorecardView":
    """Return a widget of ``card``: choose a metric to read what it means, and what it is made of."""
    return ScorecardView(card)


class ScorecardView(View):
    """The widget that ``scorecard_view`` returns; ``opened`` is the metric that is explained."""

    shown = traitlets.Dict().tag(sync=True)
    opened = traitlets.Unicode("").tag(sync=True)

    _esm = es_module("scorecard.js")
    _css = style_sheet("scorecard.css")

    def __init__(self, card: Scorecard) -> None:
        rows = [_row(card, metric) for metric in card.metrics()]
        names = [legible(name) for name in card.scores]
        super().__init__(shown={"legend": LEGEND, "dictionaries": names, "rows": rows})

    @override
    def describe(self) -> str:
        names = self.shown["dictionaries"]
        first = [f"{row['title']} {row['cells'][0]['text']}" for row in self.shown["rows"]]
        beside = f" beside {', '.join(names[1:])}" if len(names) > 1 else ""
        return f"{names[0]}{beside}: {', '.join(first)}"

    @override
    def static_html(self) -> str:
        heads = "".join(
            f'<th style="{_CELL};font-weight:600">{escape(name)}</th>' for name in ["", *self.shown["dictionaries"]]
        )
        rows = "".join(map(_static_row, self.shown["rows"]))
        return (
            f'{self.static_error()}<div style="opacity:0.75">{escape(LEGEND)}</div>'
            f'<table style="border-collapse:collapse;margin:6px 0"><tr>{heads}</tr>{rows}</table>'
        )


def _row(card: Scorecard, metric: Metric) -> dict[str, Any]:
    found = [scores.get(metric.name) for scores in card.scores.values()]
    several = [one.value for one in found if one]
    # Where nobody knows the best, the best here. What random directions do is no worst case to begin a line with.
    ends = {"lower": min(several), "higher": max(several), "neither": math.nan}
    end = math.nan if metric.null == RANDOM else ends[metric.better] if math.isnan(metric.best) else metric.best
    return {
        "id": metric.id,
        "title": metric.title,
        "better": {"lower": "Less is better.", "higher": "More is better.", "neither": ""}[metric.better],
        "says": metric.says,
        "null": f"Had for nothing: {metric.null}.",
        "cells": [_cell(one, end, metric.better) for one in found],
        "parts": _parts(card, metric),
    }


def _cell(one: Measurement | None, end: float, better: str) -> dict[str, Any]:
    if one is None:
        return {"text": "–", "told": "not measured", "at": None}
    told = f"{_number(one.value)}, between {_number(one.low)} and {_number(one.high)}; for nothing {_number(one.null)}"
    told += "" if math.isnan(one.best) else f", at best {_number(one.best)}"
    end = one.best if not math.isnan(end) and not math.isnan(one.best) else end
    if math.isnan(end) or end == one.null:
        return {"text": _number(one.value), "told": told, "at": None}
    if math.isnan(one.best) and (end > one.null) == (better == "lower"):
        end = math.inf  # the best here is worse than nothing
    at, *reach = (min(max((x - one.null) / (end - one.null), 0.0), 1.0) for x in (one.value, one.low, one.high))
    low, high = sorted(at if math.isnan(x) else x for x in reach)
    return {"text": _number(one.value), "told": told, "at": round(at, 4), "low": round(low, 4), "high": round(high, 4)}


def _parts(card: Scorecard, metric: Metric) -> dict[str, Any]:
    """Return the table that a metric is the mean of, where there is one: its heads and its lines."""
    names = list(card.scores)
    if metric.name.startswith("probe_") and len(card.probes):
        lines = card.probes[card.probes["k"] == int(metric.name.removeprefix("probe_"))]
        rows, heads = ["label", "value"], ["F1 of", *names, "shuffled", "ceiling"]
        wide = lines.pivot_table(index=rows, columns="dictionary", values="f1", sort=False)[names]
        own = lines.query("dictionary == @names[0]").set_index(rows)[["shuffled", "ceiling"]]
        table = wide.join(own)
    elif metric.name == "absorption" and len(card.absorbed):
        heads = ["absorbed", *names]
        table = card.absorbed.pivot_table(index=["parent", "child"], columns="dictionary", values="rate", sort=False)
        table = table.reindex(columns=names)
    else:
        return {}
    lines = [[legible(" ".join(map(str, index))), *map(_number, line)] for index, line in _lines(table)]
    return {"heads": list(map(legible, heads)), "lines": lines}


def _lines(table: pd.DataFrame) -> Any:
    return ((index, line.tolist()) for index, line in table.iterrows())


def _number(x: float) -> str:
    """Return three significant digits; a rounding error is nothing."""
    if math.isnan(x):
        return "–"
    return "0" if abs(x) < 1e-6 else f"{x:.3g}".replace("-", "−")


def _static_row(row: dict[str, Any]) -> str:
    cells = "".join(f'<td style="{_CELL}">{escape(cell["text"])}{_static_line(cell)}</td>' for cell in row["cells"])
    head = f'<th style="{_CELL};font-weight:400" title="{escape(row["says"])}">{escape(row["title"])}</th>'
    return f"<tr>{head}{cells}</tr>"


def _static_line(cell: dict[str, Any]) -> str:
    if cell["at"] is None:
        return ""
    return (
        '<div style="height:4px;width:90px;margin:2px 0;background-color:rgba(128,128,128,0.25)">'
        f'<div style="height:4px;width:{100 * cell["at"]:.0f}%;background-color:rgb(0,114,178)"></div></div>'
    )
