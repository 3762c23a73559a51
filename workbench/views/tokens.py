"""Tokens shaded by a signed number each, for instance how strongly a feature fires there.

Axes: documents are rows, each a list of token strings with one number per token.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import traitlets
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from workbench.views.base import View, es_module, style_sheet

SHADE = 0.55
"""Opacity of the strongest shade, so that the host's text colour stays legible on it in light and dark."""

COLOURS = {1: "0,114,178", -1: "230,159,0"}
"""Blue above zero, orange below (Okabe and Ito 2008)."""


class TokenView(View):
    """Documents whose tokens are shaded by a number: blue over a solid line above zero, orange over a broken one below.

    The arrow keys move between tokens, Enter or a click picks one. ``picked`` is then ``[row, position]``.

    Args:
        tokens: One list of token strings per document.
        values: One number per token of each document.
        titles: A short title per document.
        label: What the numbers are.
        caption: One line above.
        scale: The number that gets the strongest shade; the largest absolute value if None.
    """

    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)
    scale = traitlets.Float(1.0).tag(sync=True)
    picked = traitlets.List(traitlets.Int()).tag(sync=True)

    _esm = es_module("grid.js", "tokens.js")
    _css = style_sheet("grid.css")

    def __init__(
        self,
        tokens: Sequence[Sequence[str]],
        values: Sequence[Sequence[float] | Float[Tensor, " _pos"]] | Float[Tensor, "doc pos"],
        *,
        titles: Sequence[str] = (),
        label: str = "activation",
        caption: str = "",
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.show(tokens, values, titles=titles, label=label, caption=caption, scale=scale)

    def show(
        self,
        tokens: Sequence[Sequence[str]],
        values: Sequence[Sequence[float] | Float[Tensor, " _pos"]] | Float[Tensor, "doc pos"],
        *,
        titles: Sequence[str] = (),
        label: str = "activation",
        caption: str = "",
        scale: float | None = None,
    ) -> None:
        """Show these instead; the arguments are those of the view."""
        rows = _checked_rows(tokens, values, titles)
        largest = max((abs(value) for row in rows for value in row["values"]), default=0.0)
        if scale is not None and not scale > 0:
            raise ValueError(f"scale must be above 0 (it gets the strongest shade), got {scale}.")
        with self.hold_sync():
            self.picked = []
            self.rows, self.label, self.caption, self.scale = rows, label, caption, float(scale or largest or 1.0)

    @traitlets.validate("picked")
    def _picks_a_token(self, proposal: dict[str, Any]) -> list[int]:
        picked = proposal["value"]
        inside = len(picked) == 2 and 0 <= picked[0] < len(self.rows)
        if picked and not (inside and 0 <= picked[1] < len(self.rows[picked[0]]["tokens"])):
            # This kind, because traitlets then takes the old value back.
            raise traitlets.TraitError(f"picked must be [row, position] of a token shown here or [], got {picked}.")
        return picked

    @override
    def describe(self) -> str:
        counts = f"{len(self.rows)} rows, {sum(len(row['tokens']) for row in self.rows)} tokens"
        place = self._strongest()
        if place is None:
            return f"{counts}; {self.label} is 0 everywhere"
        row, position = place
        token = self.rows[row]["tokens"][position]
        return f"{counts}; strongest {self.label} at {token.strip()!r} (row {row}, token {position})"

    def _strongest(self) -> tuple[int, int] | None:
        places = [(i, j) for i, row in enumerate(self.rows) for j in range(len(row["tokens"]))]
        best = max(places, key=lambda place: abs(self._value(place)), default=None)
        return best if best is not None and self._value(best) else None

    def _value(self, place: tuple[int, int]) -> float:
        return self.rows[place[0]]["values"][place[1]]

    @override
    def static_html(self) -> str:
        caption = f'<div style="margin:0 0 6px">{escape(self.caption)}</div>' if self.caption else ""
        return self.static_error() + caption + self._static_legend() + static_tokens(self.rows, self.scale)

    def _static_legend(self) -> str:
        low = min((value for row in self.rows for value in row["values"]), default=0.0)
        shades = [-1.0, -0.5] * (low < 0) + [0.0, 0.5, 1.0]
        swatches = "".join(
            f'<span style="{_shade(shade)};padding:0 9px">{_signed(shade * self.scale)}</span> ' for shade in shades
        )
        return f'<div style="margin:0 0 8px;font-size:12px">{escape(self.label)}: {swatches}</div>'


def static_tokens(rows: Sequence[dict[str, Any]], scale: float) -> str:
    """Return rows of tokens, each with ``title``, ``tokens`` and ``values``, as static HTML."""
    return "".join(_static_row(row, scale) for row in rows)


def _static_row(row: dict[str, Any], scale: float) -> str:
    title = f'<div style="opacity:0.75;font-size:12px">{escape(row["title"])}</div>' if row["title"] else ""
    tokens = "".join(
        f'<span title="{_signed(value)}" style="{_shade(value / scale)};padding:1px 3px">'
        f"{escape(visible(token))}</span> "
        for token, value in zip(row["tokens"], row["values"], strict=True)
    )
    return f'<div style="margin:0 0 10px">{title}<div style="line-height:2">{tokens}</div></div>'


def visible(token: str) -> str:
    """Return ``token`` as it is shown: a line break as a sign, nothing at all as another."""
    return token.replace("\n", "⏎").strip() or ("␣" if token else "∅")


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−") if value else "0"


def _shade(share: float) -> str:
    if share == 0:
        return "border-bottom:2px solid transparent"
    colour = COLOURS[1 if share > 0 else -1]
    line = "solid" if share > 0 else "dashed"
    alpha = SHADE * min(abs(share), 1.0)
    return f"background-color:rgba({colour},{alpha:.2f});border-bottom:2px {line} rgb({colour})"


def _checked_rows(tokens: Any, values: Any, titles: Sequence[str]) -> list[dict[str, Any]]:
    if any(isinstance(row, str) for row in tokens):
        raise ValueError(
            "tokens must be a list of documents, each a list of token strings, got a list of strings; "
            "put one document in a list of its own: TokenView([tokens], [values])."
        )
    if len(tokens) != len(values) or (titles and len(titles) != len(tokens)):
        raise ValueError(
            f"Each document needs one row of values and, if there are titles, one title: "
            f"got {len(tokens)} documents, {len(values)} rows of values and {len(titles)} titles."
        )
    rows = []
    for number, (words, numbers) in enumerate(zip(tokens, values, strict=True)):
        numbers = [float(value) for value in numbers]
        if len(words) != len(numbers):
            raise ValueError(
                f"Each token needs one value: document {number} has {len(words)} tokens and {len(numbers)} values."
            )
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"Values must be finite numbers; document {number} has a NaN or an infinity.")
        rows.append({"title": titles[number] if titles else "", "tokens": list(words), "values": numbers})
    return rows
