"""Results as matplotlib figures, each with a line of text that states what it decides.

The only file that imports matplotlib. Figures have a clear ground and colours that read on white and on black
(from Okabe and Ito 2008), so that they fit light and dark notebooks. They are built without pyplot: nothing is
shown twice and no global state is touched. The lines name ranks, signs and tokens rather than decimals, so that
they can be compared between machines.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

INK = "#797979"
"""Text and axes: the grey that stands out equally from white and from a dark notebook."""

BLUE, VERMILION = "#0072b2", "#d55e00"

WIDTH = 8.5
"""Inches; as wide as a notebook's output."""


@dataclass(frozen=True)
class Plot:
    """A figure, shown with the line that says the same in words."""

    figure: Figure
    """Of matplotlib, to be changed or saved like any other."""

    alt: str
    """What the figure decides, for those who do not see it, and for tests."""

    def __repr__(self) -> str:
        return self.alt

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
    axes.bar(range(len(tokens)), numbers, width=0.8, color=[BLUE if value > 0 else VERMILION for value in numbers])
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
