"""A core and a shortcut feature that predict a class, of which one is easier to take up (Hermann et al. 2024).

A class y of ±1 is seen through two latents, each normal around ±μ by class with deviation 1, independent given y.
The *predictivity* ρ of a latent is how often its sign is y, so that μ is the normal quantile of ρ. *Availability* is
how the input shows a latent: its amplitude, on how many coordinates. The optimal classifier goes by the sign of μ·z
whatever the availability; reliance on the shortcut beyond it is *shortcut bias*.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from workbench.geometry.toys.fit import fit, relu_network, seeded


@dataclass(frozen=True, kw_only=True)
class Shortcut:
    """How well the latents predict the class, and how easily they are seen."""

    core: float = 0.97
    """Predictivity of the core latent, from 0.5 to below 1."""

    shortcut: float = 0.97
    """Predictivity of the shortcut latent."""

    amplitude: float = 1.0
    """What the shortcut latent is multiplied with in the input; the core latent with 1."""

    copies: int = 1
    """On how many coordinates the shortcut latent is written; the core latent on one."""

    def __post_init__(self) -> None:
        if not all(0.5 <= rho < 1 for rho in (self.core, self.shortcut)) or self.amplitude <= 0 or self.copies < 1:
            raise ValueError(
                "A shortcut has predictivities from 0.5 to below 1, an amplitude above 0 and at least 1 copy; got "
                f"core={self.core}, shortcut={self.shortcut}, amplitude={self.amplitude}, copies={self.copies}."
            )

    @property
    def means(self) -> Float[Tensor, "2"]:
        """The mean of each latent, core and shortcut, in the class +1."""
        return torch.special.ndtri(torch.tensor([self.core, self.shortcut]))

    def draw(self, rows: int, generator: Generator) -> tuple[Float[Tensor, "row 2"], Float[Tensor, " row"]]:
        """Draw the latents of ``rows`` examples, core and shortcut, and their classes of ±1."""
        y = 2.0 * torch.randint(2, (rows,), generator=generator) - 1
        return y[:, None] * self.means + torch.randn(rows, 2, generator=generator), y

    def inputs(self, latents: Float[Tensor, "row 2"]) -> Float[Tensor, "row d_in"]:
        """Return what a network sees of the latents."""
        return torch.cat([latents[:, :1], self.amplitude * latents[:, 1:].expand(-1, self.copies)], dim=1)


@dataclass(frozen=True)
class Reliance:
    """What a classifier follows where core and shortcut disagree."""

    shortcut: float
    """Share of conflict inputs on which the classifier follows the shortcut."""

    bias: float
    """That share less the optimal classifier's."""

    accuracy: float
    """Share of new examples, of the training's kind, that the classifier gets right."""


def rely(data: Shortcut, *, hidden: int | None = 128, rows: int = 2000, steps: int = 400, seed: int = 0) -> Reliance:
    """Train a classifier on squared error and return what it relies on where the latents disagree in sign.

    Conflict inputs are drawn evenly from the square that holds the data, not from the data: there, few conflict.
    ``hidden`` is the width of its one ReLU layer, None for a linear one; a seed has the same latents for all ``data``.
    """
    with seeded(seed) as generator:
        latents, y = data.draw(rows, generator)
        held, truth = data.draw(20_000, generator)
        square = (2 * torch.rand(20_000, 2, generator=generator) - 1) * (data.means.max() + 1)
        conflict = square[square.prod(1) < 0]
        x = data.inputs(latents)
        net = relu_network(x.shape[1], *([] if hidden is None else [hidden]), 1)

    def loss() -> Tensor:
        return nn.functional.mse_loss(net(x)[:, 0], y)

    fit(net.parameters(), loss, steps=steps, lr=1e-1 if hidden is None else 3e-3)
    with torch.no_grad():
        follows = (net(data.inputs(conflict))[:, 0] > 0) == (conflict[:, 1] > 0)
        right = (net(data.inputs(held))[:, 0] > 0) == (truth > 0)
    best = (conflict @ data.means > 0) == (conflict[:, 1] > 0)
    shortcut, optimal = float(follows.float().mean()), float(best.float().mean())
    return Reliance(shortcut, shortcut - optimal, float(right.float().mean()))
