"""Numbers of tokens as bars: what may come next, and one signed number along a text."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.plots.axes import BLUE, INK, VERMILION, blank, legend_above, name_columns
from workbench.plots.plot import Plot, below


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
    figure, axes = blank(0.55 + 0.34 * top, title)
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
    legend_above(axes)
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
        f"The largest error is {below(float(gap.max()))}, at {words[int(gap.argmax())]!r}."
    )


def token_bars(
    tokens: Sequence[str], values: Float[Tensor, " pos"], *, axis: str = "activation", title: str = ""
) -> Plot:
    """Draw one signed number per token along a text of at most 64 tokens."""
    if not 1 <= len(tokens) == len(values) <= 64:
        raise ValueError(
            f"token_bars takes 1 to 64 tokens with one value each, got {len(tokens)} tokens and {len(values)} values."
        )
    figure, axes = blank(2.6, title)
    numbers = values.tolist()
    colours = [BLUE if value > 0 else VERMILION for value in numbers]
    axes.bar(range(len(tokens)), numbers, width=0.8, color=colours, label=axis)
    axes.axhline(0, color=INK, lw=0.8)
    name_columns(axes, tokens)
    axes.set_xlim(-0.7, len(tokens) - 0.3)
    axes.set_ylabel(axis)

    signs = {"above": values > 0, "below": values < 0}
    counts = [f"{side} 0 at {int(where.sum())}" for side, where in signs.items() if where.any()]
    if not counts:
        return Plot(figure, f"The {axis} is 0 at all {len(tokens)} tokens.")
    peak = int(values.abs().argmax())
    alt = f"The {axis} is {' and '.join(counts)} of {len(tokens)} tokens; strongest at {tokens[peak]!r} (token {peak})."
    return Plot(figure, alt)
