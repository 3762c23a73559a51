"""The ground that figures are drawn on: its size, its colours, the names along it.

Built without pyplot: nothing is shown twice and no global state is touched.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#797979"
"""Text and axes: the grey that stands out equally from white and from a dark notebook."""

BLUE, VERMILION = "#0072b2", "#d55e00"

WIDTH = 8.5
"""Inches; as wide as a notebook's output."""


def blank(height: float, title: str, *, width: float = WIDTH, pad: float = 10.0) -> tuple[Figure, Axes]:
    """Return a figure of these inches with one pair of axes on a clear ground, ``pad`` points below its title."""
    figure = Figure(figsize=(width, height))
    axes = figure.subplots()
    inked(axes)
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, color=INK, fontsize=13, loc="left", pad=pad)
    return figure, axes


def inked(axes: Axes) -> None:
    """Give axes the colours of the text."""
    axes.set_facecolor("none")
    for spine in axes.spines.values():
        spine.set_color(INK)
    axes.tick_params(colors=INK, labelsize=12)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=12)


def name_columns(axes: Axes, names: Sequence[str]) -> None:
    """Write names below the places 0, 1, 2, …, slanted where they are many or long."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    inches = axes.get_position().width * figure.get_figwidth()
    if len(names) <= 8 and 0.1 * len(names) * max(map(len, names)) <= inches:
        look = {}
    else:
        size = 11 if len(names) <= 40 else 9
        look = {"rotation": 60, "ha": "right", "rotation_mode": "anchor", "fontsize": size}
    axes.set_xticks(range(len(names)), list(names), **look)
    axes.tick_params(axis="x", length=0)


def legend_above(axes: Axes) -> None:
    """Name the series above the axes, for bars and lines may reach anywhere."""
    columns = len(axes.get_legend_handles_labels()[1])
    axes.legend(frameon=False, labelcolor=INK, fontsize=11, loc="lower right", bbox_to_anchor=(1, 1), ncols=columns)
