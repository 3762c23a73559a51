"""Results as matplotlib figures, each with a line of text that states what it decides.

The only file that imports matplotlib. Figures have a clear ground and colours that read on white and on black
(from Okabe and Ito 2008), so that they fit light and dark notebooks. They are built without pyplot: nothing is
shown twice and no global state is touched. The lines name ranks, signs and tokens rather than decimals, so that
they can be compared between machines. What a figure is claimed to show is checked on what it draws:
``plot.claims(rises("ReLU network"))``, for what the eye reads off a figure can be asserted (Shome et al. 2024).
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from torch import Tensor

INK = "#797979"
"""Text and axes: the grey that stands out equally from white and from a dark notebook."""

BLUE, VERMILION = "#0072b2", "#d55e00"

WIDTH = 8.5
"""Inches; as wide as a notebook's output."""


@dataclass(frozen=True)
class Claim:
    """A property of the series that a figure draws; made by :func:`rises` and its like."""

    text: str
    """The property in words."""

    series: tuple[str, ...]
    """Names of the series it speaks of, as in the legend."""

    holds: Callable[..., bool]
    """Tells whether it holds of the values of these series; of values that are no numbers it never does."""


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
        """Return the numbers of one series, read from the lines or bars themselves, by their places on the axis."""
        found: dict[str, tuple[list[str], np.ndarray]] = {}
        for axes in self.figure.axes:
            for line in axes.get_lines():
                name = str(line.get_label())
                if not name.startswith("_child"):  # what matplotlib calls a line without a name
                    places = [f"{x:g}" for x in np.asarray(line.get_xdata())]
                    found[name.removeprefix("_")] = places, np.asarray(line.get_ydata())
            for bars in (bars for bars in axes.containers if isinstance(bars, BarContainer)):
                flat = bars.orientation == "horizontal"
                places = [tick.get_text() for tick in (axes.get_yticklabels() if flat else axes.get_xticklabels())]
                sizes = [bar.get_width() if flat else bar.get_height() for bar in bars]
                found[str(bars.get_label())] = places, np.asarray(sizes)
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
                print(f"not asserted: {claim.text}. Drawn are {told}.")  # noqa: T201 (for the reader of a notebook)
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


def rises(series: str) -> Claim:
    """Claim that each value is above the one before."""
    return Claim(f"{series!r} rises at every step", (series,), lambda y: len(y) > 1 and all(y.diff()[1:] > 0))


def falls(series: str) -> Claim:
    """Claim that each value is below the one before."""
    return Claim(f"{series!r} falls at every step", (series,), lambda y: len(y) > 1 and all(y.diff()[1:] < 0))


def within(series: str, low: float = -float("inf"), high: float = float("inf")) -> Claim:
    """Claim that all values lie from ``low`` to ``high``."""
    return Claim(f"{series!r} lies in {low:g}..{high:g}", (series,), lambda y: bool(y.between(low, high).all()))


def steady(series: str, *, within: float) -> Claim:
    """Claim that the largest value is above the smallest by at most ``within``."""
    return Claim(f"{series!r} changes by at most {within:g}", (series,), lambda y: bool(np.ptp(y) <= within))


def ordered(series: str, *places: str, times: float = 1.0) -> Claim:
    """Claim that the value at each of ``places`` is more than ``times`` the value at the next."""
    text = f"{series!r} at {f' is more than {times:g} times that at '.join(map(repr, places))}"

    def holds(y: pd.Series) -> bool:
        at = [_at(y, place) for place in places]
        return len(at) > 1 and all(one > times * other for one, other in pairwise(at))

    return Claim(text, (series,), holds)


def above(series: str, other: str, *, by: float = 0.0, at: Sequence[str] | None = None) -> Claim:
    """Claim that one series is above another by more than ``by``, at these places or everywhere."""
    text = f"{series!r} is above {other!r}" + (f" by more than {by:g}" if by else "")

    def holds(y: pd.Series, z: pd.Series) -> bool:
        pairs = zip(y, z, strict=True) if at is None else [(_at(y, place), _at(z, place)) for place in at]
        return all(one > two + by for one, two in pairs)

    return Claim(text + (f" at {', '.join(at)}" if at else ""), (series, other), holds)


def peaks(series: str, at: str) -> Claim:
    """Claim that the value at one place is above all others."""
    text = f"{series!r} is highest at {at!r}"
    return Claim(text, (series,), lambda y: bool((_at(y, at) > y[y.index != at]).all()))


def _at(values: pd.Series, place: str) -> float:
    found = [value for at, value in values.items() if at == place]
    if len(found) != 1:
        drawn = ", ".join(map(repr, values.index))
        raise ValueError(f"{values.name!r} is drawn at {drawn}: {len(found)} times at {place!r}, and not once.")
    return found[0]


def next_tokens(
    words: Sequence[str],
    model: Float[Tensor, " d_vocab"],
    exact: Float[Tensor, " d_vocab"] | None = None,
    *,
    top: int = 8,
    title: str = "",
) -> Plot:
    """Draw the likeliest next tokens of a model, beside their exact probabilities where these are known.

    Args:
        words: The vocabulary.
        model: The model's probability of each word.
        exact: The true probability of each word; None for text whose law nobody knows.
        top: How many words; the likeliest by the larger of the two probabilities.
        title: What comes before the next token.
    """
    if not len(words) == len(model) == (len(model) if exact is None else len(exact)):
        raise ValueError(
            f"Each word needs its probabilities: got {len(words)} words, {len(model)} of the model and "
            f"{'no' if exact is None else len(exact)} exact ones."
        )
    if not 1 <= top <= len(words):
        raise ValueError(f"top must lie in 1..{len(words)} (the vocabulary), got {top}.")
    shown = (model if exact is None else torch.maximum(model, exact)).topk(top).indices.tolist()
    figure, axes = _axes(0.55 + 0.34 * top, title)
    places = torch.arange(top)
    above = 0.0 if exact is None else 0.2
    axes.barh((places - above).tolist(), model[shown].tolist(), height=0.38, color=BLUE, label="model")
    if exact is not None:
        axes.barh(
            (places + above).tolist(),
            exact[shown].tolist(),
            height=0.34,
            fill=False,
            edgecolor=VERMILION,
            lw=1.5,
            label="exact",
        )
    axes.set_yticks(places.tolist(), labels=[str(words[i]) for i in shown])
    axes.invert_yaxis()
    axes.set_xlabel("probability of coming next")
    axes.tick_params(axis="y", length=0)
    # Above the bars, which may reach anywhere.
    axes.legend(frameon=False, labelcolor=INK, fontsize=11, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return Plot(figure, _next_tokens_alt(words, model, exact, top))


def _next_tokens_alt(words: Sequence[str], model: Tensor, exact: Tensor | None, top: int) -> str:
    first = int(model.argmax())
    if exact is None:
        others = ", ".join(repr(words[i]) for i in model.topk(top).indices[1:3].tolist())
        return f"The model's likeliest next token is {words[first]!r}" + (f"; then come {others}." if others else ".")
    slack = 1e-6  # words that are equally likely are all the likeliest
    best = exact >= exact.max() - slack
    tied = int(best.sum())
    truth = "the likeliest in truth" if tied == 1 else f"one of the {tied} that are equally likely in truth"
    bar = exact.topk(top).values[-1] - slack
    common = int((exact[model.topk(top).indices] >= bar).sum())
    gap = (model - exact).abs()
    return (
        f"The model's likeliest next token is {words[first]!r}, {'' if best[first] else 'not '}{truth}; {common} of "
        f"its {top} likeliest are among the {max(top, tied)} likeliest in truth. "
        f"The largest error is {_below(float(gap.max()))}, at {words[int(gap.argmax())]!r}."
    )


def token_bars(
    tokens: Sequence[str], values: Float[Tensor, " pos"], *, axis: str = "activation", title: str = ""
) -> Plot:
    """Draw one signed number per token along a text of at most 64 tokens."""
    if not 1 <= len(tokens) == len(values) <= 64:
        raise ValueError(
            f"token_bars takes 1 to 64 tokens with one value each, got {len(tokens)} tokens and {len(values)} values."
        )
    figure, axes = _axes(2.6, title)
    numbers = values.tolist()
    colours = [BLUE if value > 0 else VERMILION for value in numbers]
    axes.bar(range(len(tokens)), numbers, width=0.8, color=colours, label=axis)
    axes.axhline(0, color=INK, lw=0.8)
    size = 11 if len(tokens) <= 40 else 9
    axes.set_xticks(range(len(tokens)), list(tokens), rotation=60, ha="right", rotation_mode="anchor", fontsize=size)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.7, len(tokens) - 0.3)
    axes.set_ylabel(axis)

    signs = {"above": values > 0, "below": values < 0}
    counts = [f"{side} 0 at {int(where.sum())}" for side, where in signs.items() if where.any()]
    if not counts:
        return Plot(figure, f"The {axis} is 0 at all {len(tokens)} tokens.")
    peak = int(values.abs().argmax())
    alt = f"The {axis} is {' and '.join(counts)} of {len(tokens)} tokens; strongest at {tokens[peak]!r} (token {peak})."
    return Plot(figure, alt)


def dose_response(
    strengths: Float[Tensor, " strength"],
    share: Float[Tensor, " strength"],
    control: Float[Tensor, "direction strength"],
    *,
    axis: str = "share of target words",
    title: str = "",
) -> Plot:
    """Draw an effect against the strength of a direction, over the band that random directions span.

    Args:
        strengths: In rising order.
        share: The effect of the direction.
        control: The effect of each random direction of the same norm.
        axis: What the effect is.
        title: One line above.
    """
    if len(strengths) < 2 or not bool((strengths.diff() > 0).all()):
        raise ValueError(f"strengths must be two or more numbers in rising order, got {strengths.tolist()}.")
    figure, axes = _axes(3.0, title)
    low, high = control.amin(0), control.amax(0)
    doses = strengths.tolist()
    axes.fill_between(doses, low.tolist(), high.tolist(), color=INK, alpha=0.5, lw=0, label="random directions")
    for edge, name in ((low, "_lowest random direction"), (high, "_highest random direction")):
        axes.plot(doses, edge.tolist(), color=INK, lw=0.8, label=name)
    axes.plot(doses, share.tolist(), color=BLUE, lw=2, marker="o", label="this direction")
    axes.set_xlabel("strength")
    axes.set_ylabel(axis)
    axes.set_ylim(bottom=min(0.0, float(share.min()), float(low.min())))
    axes.legend(frameon=False, labelcolor=INK, fontsize=11, loc="upper left")

    above = [_signed(dose) for dose, over in zip(doses, share > high, strict=True) if over]
    rises = "rises" if share[-1] > share[0] else "does not rise"
    where = f"at {', '.join(above)}" if above else "at no strength"
    alt = (
        f"The {axis} {rises} from the lowest strength to the highest and is highest at "
        f"{_signed(doses[int(share.argmax())])}; it is above all {len(control)} random directions {where}."
    )
    return Plot(figure, alt)


def explained_bars(
    labels: Sequence[str], share: Float[Tensor, " label"], accuracy: Float[Tensor, " label"], *, title: str = ""
) -> Plot:
    """Draw how much of a representation each label explains, beside how often a network answers it right."""
    if not 1 <= len(labels) == len(share) == len(accuracy):
        given = f"{len(labels)} labels, {len(share)} shares and {len(accuracy)} accuracies"
        raise ValueError(f"explained_bars takes one or more labels with a share and an accuracy each, got {given}.")
    figure, axes = _axes(2.6, title)
    places = torch.arange(len(labels))
    outline = {"fill": False, "edgecolor": VERMILION, "lw": 1.5}
    axes.bar((places - 0.2).tolist(), share.tolist(), width=0.38, color=BLUE, label="variance explained")
    axes.bar((places + 0.2).tolist(), accuracy.tolist(), width=0.36, label="accuracy", **outline)
    axes.set_xticks(places.tolist(), labels=list(labels))
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, labelcolor=INK, fontsize=11, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)

    most, least = int(share.argmax()), int(share.argmin())
    right = 99 if float(accuracy.min()) >= 0.99 else int(100 * float(accuracy.min()) // 10 * 10)
    alt = f"Each label is answered right at least {right} % of the time."
    if len(labels) > 1:
        times = int(share[most] / share[least].clamp_min(1e-9))
        more = f"at least {min(times, 100)} times as much as" if times > 1 else "less than twice as much as"
        alt += f" {labels[most]!r} explains most of the variance, {more} {labels[least]!r}."
    return Plot(figure, alt)


def reliance_lines(
    availability: Float[Tensor, " level"],
    bias: Mapping[str, Float[Tensor, " level"]],
    *,
    axis: str = "availability of the shortcut",
    title: str = "",
) -> Plot:
    """Draw shortcut bias, the reliance beyond the optimal classifier, against rising availability.

    Args:
        availability: Numbers above 0, in rising order.
        bias: A line for each of up to four networks.
        axis: What the availability is.
        title: One line above.
    """
    if len(availability) < 2 or not bool((availability[:1] > 0).all() and (availability.diff() > 0).all()):
        raise ValueError(f"availability must be two or more rising numbers above 0, got {availability.tolist()}.")
    if not 1 <= len(bias) <= 4 or any(len(line) != len(availability) for line in bias.values()):
        given = ", ".join(f"{len(line)} of {name!r}" for name, line in bias.items()) or "none"
        raise ValueError(f"1 to 4 networks have {len(availability)} numbers each, one per availability; got {given}.")
    figure, axes = _axes(3.0, title)
    axes.axhline(0, color=INK, lw=0.8)
    looks = ((BLUE, "o-"), (VERMILION, "s-"), (BLUE, "o--"), (VERMILION, "s--"))
    for (name, line), (colour, look) in zip(bias.items(), looks, strict=False):
        axes.plot(availability.tolist(), line.tolist(), look, color=colour, lw=2, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(availability.tolist(), labels=[f"{level:g}" for level in availability.tolist()])
    axes.set_xlabel(axis)
    axes.set_ylabel("shortcut bias")
    axes.legend(frameon=False, labelcolor=INK, fontsize=11, loc="upper left")
    says = []
    for name, line in bias.items():
        steps, range_ = line.diff(), float(line.max() - line.min())
        if range_ >= 0.02 and (bool((steps > 0).all()) or bool((steps < 0).all())):
            says.append(f"{'rises' if steps[0] > 0 else 'falls'} at every step in {name!r}")
        else:
            says.append(f"changes by {_below(range_)} in {name!r}")
    return Plot(figure, f"With the {axis}, shortcut bias {' and '.join(says)}.")


def _axes(height: float, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.subplots()
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(INK)
    axes.tick_params(colors=INK, labelsize=12)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=12)
    if title:
        axes.set_title(title, color=INK, fontsize=13, loc="left", pad=10)
    return figure, axes


def _signed(strength: float) -> str:
    return f"{strength:+g}".replace("-", "−") if strength else "0"


def _below(value: float) -> str:
    """Return the rounded bound that ``value`` is below; decimals would differ between machines."""
    bound = next(bound for bound in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, float("inf")) if value < bound)
    return "0.5 or more" if bound == float("inf") else f"below {bound:g}"
