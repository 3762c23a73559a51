"""Numbers by their names: side by side as bars, or row by column as a heat map."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.colors import LinearSegmentedColormap, Normalize
from torch import Tensor

from workbench.plots.axes import BLUE, INK, VERMILION, blank, inked, legend_above, name_columns
from workbench.plots.plot import Plot

CLOSE = 0.02
"""Share of the largest number below which lines tell no two apart: another machine may rank them otherwise."""

NEUTRAL = "#ececec"
"""The colour of a cell that is 0: lighter than both ends of the scale."""


def bars(
    labels: Sequence[str],
    series: Mapping[str, Float[Tensor, " label"]],
    *,
    axis: str,
    top: float | None = None,
    title: str = "",
) -> Plot:
    """Draw one to three series of numbers side by side over the labels that they share.

    Args:
        labels: What the numbers are of; each bar stands over one.
        series: The numbers, by the name of their series.
        axis: What the numbers are.
        top: Where the axis ends, unless a bar is higher.
        title: One line above.

    Raises:
        ValueError: No label, no or too many series, not one number per label, or numbers that are not finite.
    """
    if not len(labels) or not 1 <= len(series) <= 3 or any(len(line) != len(labels) for line in series.values()):
        given = ", ".join([f"{len(labels)} labels", *(f"{len(line)} of {name!r}" for name, line in series.items())])
        raise ValueError(f"bars takes 1 or more labels and 1 to 3 series with a number for each; got {given}.")
    for name, line in series.items():
        _check_finite(f"numbers of {name!r}", line)
    figure, axes = blank(2.6, title, pad=32.0 if len(series) > 1 else 10.0)  # the legend lies between
    looks = ((BLUE, True), (VERMILION, False), (INK, True))
    room = 0.8 / len(series)
    for i, ((name, line), (colour, fill)) in enumerate(zip(series.items(), looks, strict=False)):
        places = np.arange(len(labels)) + room * (i - (len(series) - 1) / 2)
        axes.bar(places, line.tolist(), width=0.9 * room, fc=colour if fill else "none", ec=colour, lw=1.5, label=name)
    axes.axhline(0, color=INK, lw=0.8)
    name_columns(axes, labels)
    axes.set_ylabel(axis)
    if top is not None:
        axes.set_ylim(top=max(top, *(float(line.max()) for line in series.values())))
    if len(series) > 1:
        legend_above(axes)

    places, says = [f"at {label!r}" for label in labels], []
    for name, line in series.items():
        high, low = _highest(line.tolist(), places), _highest((-line).tolist(), places)
        says.append(f"{name!r} " + (f"is highest {high} and lowest {low}" if high else "hardly differs"))
    return Plot(figure, f"{'; '.join(says)}.")


def heatmap(
    values: Float[Tensor, "row column"],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    axis: str,
    title: str = "",
    low: float | None = None,
    high: float | None = None,
) -> Plot:
    """Draw a table of numbers as coloured cells, each with its number; its rows are the series of the plot.

    Colours go from vermilion below 0 to blue above; where nothing is below 0, from grey at ``low`` to blue at ``high``.

    Args:
        values: Of up to 16 rows and 16 columns.
        rows: Names, all different.
        columns: Names; where they are those of the rows, the line says what is highest off the diagonal.
        axis: What the numbers are.
        title: One line above.
        low: Where the colours begin; 0 or the lowest value unless given.
        high: Where the colours end; 0 or the highest value unless given.

    Raises:
        ValueError: Names that do not fit the values or are the same, too many, no finite numbers, or ``low`` not below
            ``high``.
    """
    shape = tuple(values.shape)
    if shape != (len(rows), len(columns)) or not all(1 <= size <= 16 for size in shape):
        given = f"values of {shape}, {len(rows)} row names and {len(columns)} column names"
        raise ValueError(f"heatmap takes 1 to 16 rows and columns with a name each, got {given}.")
    if len(set(rows)) < len(rows):
        raise ValueError(f"The rows need different names, for claims speak of them by name; got {list(rows)}.")
    _check_finite("values", values)
    cells = np.array(values.tolist())
    low = min(0.0, cells.min()) if low is None else low
    high = (max(0.0, cells.max()) or float(low == 0)) if high is None else high
    if low >= high:
        raise ValueError(f"low must be below high, where the colours begin and end; got {low:g} and {high:g}.")

    margin, inches, scale_inches = 0.3 + 0.1 * max(map(len, rows)), min(0.9 * len(columns), 6.0), 1.2
    width = margin + inches + scale_inches
    figure, axes = blank(0.5 + 0.5 * len(rows), title, width=width)
    figure.subplots_adjust(left=margin / width, right=1 - scale_inches / width)
    parts = [VERMILION, NEUTRAL, BLUE] if low < 0 else [NEUTRAL, BLUE]
    colours = LinearSegmentedColormap.from_list("", parts, N=255)  # an odd number, so that 0 has the middle colour
    reach = max(-low, high)
    scale = Normalize(-reach, reach) if low < 0 else Normalize(low, high)
    image = axes.imshow(cells, colours, scale, aspect="auto", interpolation="none")
    bar = figure.colorbar(image, axes.inset_axes((1 + 0.15 / inches, 0, 0.15 / inches, 1)), label=axis)
    bar.outline.set_visible(False)
    inked(bar.ax)
    axes.spines[:].set_visible(False)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.tick_params(axis="y", length=0)
    name_columns(axes, columns)
    size = 10 if len(columns) <= 12 else 8
    for (row, column), value in np.ndenumerate(cells):
        ink = "black" if _luminance(colours(scale(value))) > 0.18 else "white"  # either way a contrast above 4.5
        axes.text(column, row, f"{value:z.2f}".replace("-", "−"), color=ink, fontsize=size, ha="center", va="center")

    square = list(rows) == list(columns) and len(rows) > 1
    told = [(row, column) for row, column in np.ndindex(shape) if not square or row != column]
    names = [f"in row {rows[row]!r} at {columns[column]!r}" for row, column in told]
    where = _highest([float(cells[at]) for at in told], names)
    says = f"is highest {where}" if where else "hardly differs"
    return Plot(figure, f"{'Off the diagonal, the' if square else 'The'} {axis} {says}.")


def _check_finite(name: str, numbers: Tensor) -> None:
    if not numbers.isfinite().all():
        lost = int((~numbers.isfinite()).sum())
        raise ValueError(f"The {name} must be finite, and {lost} are not; leave out what could not be measured.")


def _highest(numbers: Sequence[float], places: Sequence[str]) -> str:
    """Return the places where numbers are highest or nearly so; "" where they hardly differ at all."""
    close = CLOSE * max(map(abs, numbers))
    if max(numbers) - min(numbers) <= close:
        return ""
    best = [place for place, number in zip(places, numbers, strict=True) if number >= max(numbers) - close / 2]
    return " and ".join(best) if len(best) <= 2 else f"at {len(best)} of {len(places)} places"


def _luminance(colour: tuple[float, ...]) -> float:
    """Return the relative luminance of a colour (WCAG 2)."""
    light = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return float(np.dot(light, [0.2126, 0.7152, 0.0722]))
