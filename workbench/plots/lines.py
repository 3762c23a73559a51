"""Numbers against a number as lines: strength and response, sparsity and error."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from workbench.plots.axes import BLUE, INK, VERMILION, blank, legend_above
from workbench.plots.plot import Plot, below


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
    figure, axes = blank(3.0, title)
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


def lines(
    x: Float[Tensor, " place"],
    series: Mapping[str, Float[Tensor, " place"]],
    *,
    across: str,
    axis: str,
    log: bool = False,
    title: str = "",
) -> Plot:
    """Draw one to four quantities against another.

    Args:
        x: In rising order.
        series: The numbers at each of these places, by the name of their line.
        across: What ``x`` is.
        axis: What the numbers are.
        log: Whether equal ratios of ``x``, which is above 0, are equal distances; each place is then named.
        title: One line above.
    """
    if len(x) < 2 or not bool((x.diff() > 0).all() and (x[0] > 0 or not log)):
        above = " above 0" if log else ""
        raise ValueError(f"lines stand over two or more rising numbers{above}, got {across} {x.tolist()}.")
    if not 1 <= len(series) <= 4 or any(len(line) != len(x) for line in series.values()):
        given = ", ".join(f"{len(line)} of {name!r}" for name, line in series.items()) or "none"
        raise ValueError(f"1 to 4 lines have {len(x)} numbers each, one for each place; got {given}.")
    figure, axes = blank(3.0, title, pad=32.0)  # the legend lies between
    axes.axhline(0, color=INK, lw=0.8)
    looks = ((BLUE, "o-"), (VERMILION, "s-"), (BLUE, "o--"), (VERMILION, "s--"))
    for (name, line), (colour, look) in zip(series.items(), looks, strict=False):
        axes.plot(x.tolist(), line.tolist(), look, color=colour, lw=2, label=name)
    if log:
        axes.set_xscale("log", base=2)
        axes.set_xticks(x.tolist(), labels=[f"{place:g}" for place in x.tolist()])
    axes.set_xlabel(across)
    axes.set_ylabel(axis)
    legend_above(axes)
    says: dict[str, list[str]] = {}
    for name, line in series.items():
        says.setdefault(_course(line), []).append(repr(name))
    told = [
        f"{course} in {', '.join(names[:-1])}{' and ' * (len(names) > 1)}{names[-1]}" for course, names in says.items()
    ]
    return Plot(figure, f"With the {across}, {axis} {' and '.join(told)}.")


def _course(line: Tensor) -> str:
    """Say how the numbers go, from the first to the last."""
    steps, range_ = line.diff(), float(line.max() - line.min())
    rise = float(line[-1] - line[0])
    if range_ < 0.02 or abs(rise) < range_ / 2:
        return f"changes by {below(range_)}"
    # A smaller step might be the other way on another machine.
    always = bool((steps.sign() == steps[0].sign()).all() and (steps.abs() > 0.05 * range_).all())
    return f"{'rises' if rise > 0 else 'falls'} {'at every step' if always else 'on the whole'}"


def _signed(strength: float) -> str:
    return f"{strength:+g}".replace("-", "−") if strength else "0"
