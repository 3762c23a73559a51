"""A figure with the line that says the same in words, and with what is claimed of it."""

import base64
import io
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from workbench.plots.claims import Claim


@dataclass(frozen=True)
class Plot:
    """A figure, shown with the line that says the same in words."""

    figure: Figure
    """Of matplotlib, to be changed or saved like any other."""

    alt: str
    """What the figure decides, for those who do not see it, and for tests."""

    def __repr__(self) -> str:
        return self.alt

    def drawn(self, series: str) -> pd.Series:
        """Return the numbers of one series, read from what is drawn, by their places on the axis.

        A series is a line or one colour of bars, by its name in the legend, or a row of a heat map.
        """
        found: dict[str, tuple[list[str], np.ndarray]] = {}
        for axes in self.figure.axes:
            for line in axes.get_lines():
                name = str(line.get_label())
                if not name.startswith("_child"):  # what matplotlib calls a line without a name
                    places = [f"{x:g}" for x in np.asarray(line.get_xdata())]
                    found[name.removeprefix("_")] = places, np.asarray(line.get_ydata())
            rows = [tick.get_text() for tick in axes.get_yticklabels()]
            columns = [tick.get_text() for tick in axes.get_xticklabels()]
            for bars in (bars for bars in axes.containers if isinstance(bars, BarContainer)):
                flat = bars.orientation == "horizontal"
                sizes = [bar.get_width() if flat else bar.get_height() for bar in bars]
                found[str(bars.get_label())] = rows if flat else columns, np.asarray(sizes)
            for image in axes.images:
                cells = np.ma.filled(np.ma.asarray(image.get_array()), np.nan)
                found |= {row: (columns, values) for row, values in zip(rows, cells, strict=True)}
        if series not in found:
            raise ValueError(f"The figure draws no series {series!r}; it draws {', '.join(map(repr, found))}.")
        places, values = found[series]
        return pd.Series(values, index=places, name=series, dtype=float)

    def claims(self, *claims: Claim, asserted: bool = True) -> "Plot":
        """Assert what the figure is claimed to show, of the numbers that it draws, and return it.

        Args:
            claims: At least one.
            asserted: For a model of which nothing is claimed, False prints the measurements instead.
        """
        if not claims:
            raise ValueError("claims takes at least one claim, such as rises(...), within(...) or peaks(...).")
        for claim in claims:
            values = [self.drawn(name) for name in claim.series]
            holds = claim.holds(*values)
            told = "; ".join(f"{v.name}: {', '.join(f'{x} {y:.3g}' for x, y in v.items())}" for v in values)
            if not asserted:
                verdict = "holds" if holds else "does not hold"
                # For the reader of a notebook.
                print(f"not asserted, and {verdict} here: {claim.text}. Drawn are {told}.")  # noqa: T201
            elif not holds:
                raise AssertionError(f"{self.alt} But it does not hold that {claim.text}. Drawn are {told}.")
        return self

    def png(self) -> bytes:
        """Return the picture as a PNG file."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=144, transparent=True, bbox_inches="tight")
        return buffer.getvalue()

    def _ipython_display_(self) -> None:
        # Notebooks show of one output only the richest form, so the line is an output of its own.
        from IPython.display import display

        picture = base64.b64encode(self.png()).decode()
        width = int(84 * self.figure.get_figwidth())  # a little larger than life: labels are read on screens
        display({"image/png": picture, "text/plain": self.alt}, metadata={"image/png": {"width": width}}, raw=True)
        line = f'<p style="font:13px/1.5 system-ui,sans-serif;margin:0 0 12px">{escape(self.alt)}</p>'
        display({"text/html": line, "text/plain": self.alt}, raw=True)


def below(value: float) -> str:
    """Return the rounded bound that ``value`` is below; decimals would differ between machines."""
    bound = next(bound for bound in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, float("inf")) if value < bound)
    return "0.5 or more" if bound == float("inf") else f"below {bound:g}"
