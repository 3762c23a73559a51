"""Browse the features of a dictionary: all as points and as a table, one search box for both, one feature below.

Numbers travel as one binary buffer and text as one string for each column, so that fifty thousand features are a
few megabytes; points and lines are drawn by the page.
"""

import base64
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import traitlets
from typing_extensions import override

from workbench.features import FeatureSet
from workbench.views.base import Panel, View, es_module, legible, rounded, style_sheet
from workbench.views.feature import FeatureDashboard, numbered
from workbench.views.jobs import guarded

UNLISTED = ("mean", "precision", "recall", "mcc")
"""Columns that are axes of the picture and no columns of the table."""

STATIC = 12
"""Lines of the static table."""


def dictionary_browser(features: FeatureSet) -> "DictionaryBrowser":
    """Return a widget that shows all ``features`` as points and lines, and the one that is chosen as a dashboard."""
    return DictionaryBrowser(features)


class BrowserView(View):
    """Features as points over two of their columns and as lines of a table; a search narrows both.

    Args:
        table: ``FeatureSet.table``: one line for each feature, in the order of their numbers.
    """

    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    """Columns of numbers."""
    numbers = traitlets.Bytes().tag(sync=True)
    """Their float32, column after column."""
    texts = traitlets.Dict().tag(sync=True)
    """Columns of text, one line for each feature."""
    listed = traitlets.List(traitlets.Unicode()).tag(sync=True)
    """Columns of the table."""
    across = traitlets.Unicode().tag(sync=True)
    up = traitlets.Unicode().tag(sync=True)
    order = traitlets.Unicode().tag(sync=True)
    """The column that the table is sorted by, "feature" for the number."""
    falling = traitlets.Bool(True).tag(sync=True)
    query = traitlets.Unicode().tag(sync=True)
    """Words that a line must all hold, in its number (#17) or its text, in any case."""
    chosen = traitlets.Int(0).tag(sync=True)

    _esm = es_module("browser.js")
    _css = style_sheet("browser.css")

    def __init__(self, table: pd.DataFrame) -> None:
        shown = table.drop(columns=["dead", "dense"])
        shown["flag"] = np.select([table["dead"], table["dense"]], ["dead", "dense"], "")
        numbers = shown.select_dtypes("number")
        texts = {str(name): list(map(legible, shown[name])) for name in shown.columns if name not in numbers}
        self.table = numbers.assign(**texts)[shown.columns]
        names = list(map(str, numbers.columns))
        best = "f1" if "f1" in names else "max"
        self.table.insert(0, "feature", range(len(table)))
        super().__init__(
            names=names,
            numbers=numbers.to_numpy("<f4").tobytes("F"),
            texts={name: "\n".join(lines) for name, lines in texts.items()},
            listed=[str(name) for name in shown.columns if name not in UNLISTED],
            across="density",
            up=best,
            order=best,
            chosen=int(numbers[best].to_numpy().argmax()),
        )

    @traitlets.validate("across", "up", "order")
    def _is_a_column(self, proposal: dict[str, Any]) -> str:
        name = proposal["trait"].name
        allowed = ["feature", *self.listed] if name == "order" else self.names
        if proposal["value"] not in allowed:
            raise traitlets.TraitError(f"{name} must be one of {', '.join(allowed)}; got {proposal['value']!r}.")
        return proposal["value"]

    @traitlets.validate("chosen")
    def _is_a_feature(self, proposal: dict[str, Any]) -> int:
        return numbered(proposal["value"], len(self.table))

    def matching(self) -> pd.DataFrame:
        """Return the lines that the search leaves, in the order of the table."""
        words = self.query.lower().split()
        numbers = (f"#{number}" for number in range(len(self.table)))
        lines = zip(numbers, *(of.split("\n") for of in self.texts.values()), strict=True)
        kept = [all(word in line for word in words) for line in ("\n".join(one).lower() for one in lines)]
        return self.table.loc[kept].sort_values(by=self.order, ascending=not self.falling, kind="stable")

    @override
    def state(self) -> dict[str, Any]:
        return {**super().state(), "numbers": base64.b64encode(self.numbers).decode()}

    @override
    def export_state(self) -> dict[str, Any]:
        return {**self.state(), "alone": True}  # nobody there to make another page

    @override
    def snapshot(self) -> dict[str, Any]:
        asked = {name: getattr(self, name) for name in ("across", "up", "order", "falling", "query", "chosen")}
        found = self.matching()
        return rounded({**asked, "found": len(found), "features": found["feature"].tolist()[:STATIC]})

    @override
    def describe(self) -> str:
        flags = list(self.table["flag"])
        told = [f"{len(flags):,} features", *(f"{flags.count(flag):,} {flag}" for flag in ("dead", "dense"))]
        search = f"; {len(self.matching()):,} answer to {self.query!r}" if self.query else ""
        return f"{', '.join(told)}{search}; by {self.order}; feature {self.chosen} is open"

    @override
    def static_html(self) -> str:
        columns = ["feature", *self.listed]
        style = 'style="text-align:left;padding:2px 12px 2px 0;border:0;background:none"'
        head = "".join(f"<th {style}>{escape(name.replace('_', ' '))}</th>" for name in columns)
        rows = "".join(
            f"<tr>{''.join(f'<td {style}>{escape(_written(value))}</td>' for value in row)}</tr>"
            for row in self.matching()[columns].head(STATIC).itertuples(index=False)
        )
        table = f'<table style="border-collapse:collapse;margin:6px 0"><tr>{head}</tr>{rows}</table>'
        return f"{self.static_error()}<div>{escape(self.describe())}</div>{table}"


class DictionaryBrowser(Panel):
    """The widget that ``dictionary_browser`` returns."""

    def __init__(self, features: FeatureSet) -> None:
        self.view = BrowserView(features.table)
        self.dashboard = FeatureDashboard(features, self.view.chosen)
        super().__init__([self.view, self.dashboard], self.view)
        self.add_class("workbench-browser")
        self.view.observe(self._on_chosen, names="chosen")
        self.dashboard.view.observe(self._on_opened, names="number")

    @guarded
    def _on_chosen(self, change: Any) -> None:
        self.dashboard.view.number = self.view.chosen

    @guarded
    def _on_opened(self, change: Any) -> None:
        self.view.chosen = self.dashboard.view.number

    @override
    def views(self) -> list[View]:
        return [self.view, self.dashboard.view]

    @override
    def snapshot(self) -> dict[str, Any]:
        return rounded({"browser": self.view.snapshot(), "feature": self.dashboard.snapshot()})


def _written(value: Any) -> str:
    return f"{value:.3g}".replace("-", "−") if isinstance(value, float) else str(value)
