"""What every view is: a live widget that also reads as a static picture, a JSON snapshot and a file.

``View`` is one anywidget with one ES module; ``Panel`` is a column of ordinary ipywidgets with views among
them. Neither runs a model. Token text is foreign text: it reaches the page as text nodes or escaped, never as
HTML.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets
from typing_extensions import override

from workbench.views.export import page
from workbench.views.jobs import guarded

HERE = Path(__file__).parent

PICTURE_STYLE = "font:13px/1.6 system-ui,sans-serif;max-width:960px;margin:4px 0 12px"
"""Inline style around a static picture; colour is inherited, so that it follows the host's theme."""


def es_module(*names: str) -> str:
    """Return the source of a view module, ``names`` one after the other, behind the part that all views share."""
    return "".join((HERE / name).read_text("utf-8") for name in ("frame.js", *names))


def style_sheet(*names: str) -> str:
    """Return the style sheets ``names`` behind the part that all views share."""
    return "".join((HERE / name).read_text("utf-8") for name in ("frame.css", *names))


class Showable:
    """The four other readings of a widget; ``describe`` and ``static_html`` are left to each kind."""

    def views(self) -> Sequence["View"]:
        """Return the views to export."""
        raise NotImplementedError

    def describe(self) -> str:
        """Return one sentence that says what is to be seen."""
        raise NotImplementedError

    def static_html(self) -> str:
        """Return the picture as HTML with inline styles only, so that it survives an untrusted notebook."""
        raise NotImplementedError

    def snapshot(self) -> dict[str, Any]:
        """Return the state as sorted, rounded JSON values, the same on every run."""
        raise NotImplementedError

    def export_html(self, path: str | Path, *, title: str = "") -> Path:
        """Write one HTML file that shows this without a kernel or a network, and return its path."""
        path = Path(path)
        path.write_text(page(self.views(), title, self.describe()), encoding="utf-8")
        return path

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.describe()}"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        live = super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]
        data, metadata = live if isinstance(live, tuple) else (live, {})
        static = f'<div style="{PICTURE_STYLE}">{self.static_html()}</div>'
        return {**data, "text/plain": repr(self), "text/html": static}, metadata


class View(Showable, anywidget.AnyWidget):
    """One picture drawn by one ES module from the traits that are synced to it."""

    error = traitlets.Unicode("").tag(sync=True)
    """Shown above the picture and read out while it is not empty."""

    _esm: Any
    _css: Any

    @guarded
    @override
    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take what the browser sent, or show why not."""
        super().set_state(sync_data)

    @override
    def views(self) -> Sequence["View"]:
        return [self]

    @override
    def snapshot(self) -> dict[str, Any]:
        return rounded(self.state())

    def state(self) -> dict[str, Any]:
        """Return what the module draws from: the synced traits that are ours."""
        return {name: getattr(self, name) for name in self.trait_names(sync=True) if name not in _HOST_TRAITS}

    def export_state(self) -> dict[str, Any]:
        """Return what the module draws from in a file of its own."""
        return self.state()

    def static_error(self) -> str:
        """Return the error as static HTML, nothing if there is none."""
        return f'<p style="color:#d55e00;margin:0 0 8px">{escape(self.error)}</p>' if self.error else ""


_HOST_TRAITS = frozenset(anywidget.AnyWidget.class_trait_names()) | {"_esm", "_css", "_anywidget_id"}


class Panel(Showable, ipywidgets.VBox):
    """A column of controls and views; the class on it marks what the keyboard guard covers."""

    def __init__(self, children: Sequence[ipywidgets.Widget], reports: Any) -> None:
        super().__init__(children)
        self._reports = reports  # whose ``error`` is the panel's
        self.add_class("workbench-panel")

    @property
    def error(self) -> str:
        """What went wrong last, in a sentence; empty if nothing did."""
        return self._reports.error

    @error.setter
    def error(self, message: str) -> None:
        self._reports.error = message

    @override
    def views(self) -> Sequence[View]:
        return [child for child in self.children if isinstance(child, View)]

    @override
    def describe(self) -> str:
        return self.views()[0].describe()

    @override
    def static_html(self) -> str:
        return "".join(view.static_html() for view in self.views())


_HIDDEN = (
    *range(0x80, 0xA0),
    *(0x61C, 0x200B, 0x200E, 0x200F, 0xFEFF),
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2070),
)
_SIGNS = {code: chr(0x2400 + code) for code in range(32)} | {ord("\n"): "⏎", 0x7F: "␡"}
_SIGNS |= {code: f"⟨{code:04X}⟩" for code in _HIDDEN}


def legible(text: str, longest: int = 64) -> str:
    """Return ``text`` with signs for what controls a line or turns it round, cut after ``longest`` characters."""
    text = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return text.translate(_SIGNS)


def rounded(value: Any) -> Any:
    """Return ``value`` as JSON values: keys sorted, floats to four significant digits, no -0."""
    if isinstance(value, Mapping):
        return {str(key): rounded(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") + 0.0 if math.isfinite(value) else str(value)
    return value
