"""An effect against its cause as lines: strength and response, availability and bias."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from workbench.plots.axes import BLUE, INK, VERMILION, blank
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
    figure, axes = blank(3.0, title)
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
            says.append(f"changes by {below(range_)} in {name!r}")
    return Plot(figure, f"With the {axis}, shortcut bias {' and '.join(says)}.")


def _signed(strength: float) -> str:
    return f"{strength:+g}".replace("-", "−") if strength else "0"
