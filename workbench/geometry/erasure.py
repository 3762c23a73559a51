"""What is lost with some directions of a cloud of activations: the evidence of use that variance explained is not.

Where a label's class means are one, no linear read-out of it does better than a constant one (Belrose et al. 2023);
projecting the differences of the means out makes them one (Haghighatkhah et al. 2022). Whether more is lost than
that is for the network to say, by running on from the erased activations. Axes: [row, d] for activations.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from workbench.geometry.measures import class_means, clouds


@dataclass(frozen=True)
class Erased:
    """Activations that are the same along some directions."""

    acts: Float[Tensor, "row d"]
    """The activations; along the directions each now has the mean of all."""

    share: float
    """Share of the variance that went: what lay along the directions."""


def erase(acts: Float[Tensor, "row d"], directions: Float[Tensor, "direction d"]) -> Erased:
    """Return ``acts`` with what tells them apart along ``directions`` projected out.

    >>> erase(torch.tensor([[1.0, 2.0], [3.0, 2.0], [2.0, 5.0]]), torch.tensor([[0.0, 1.0]])).acts
    tensor([[1., 3.],
            [3., 3.],
            [2., 3.]])
    """
    if directions.ndim != 2 or directions.shape[1] != acts.shape[1]:
        raise ValueError(
            f"Directions are rows of {acts.shape[1]} numbers, as the activations; got {tuple(directions.shape)}."
        )
    x, _, _ = clouds(acts, torch.zeros(len(acts)), None)
    span = directions.double()
    along = x @ torch.linalg.pinv(span) @ span
    return Erased((acts - along).to(acts.dtype), float(along.square().sum() / x.square().sum()))


def mean_directions(acts: Float[Tensor, "row d"], labels: Int[Tensor, " row *label"]) -> Float[Tensor, "direction d"]:
    """Return orthonormal directions that span the differences between class means, at most one fewer than classes.

    Means of few rows differ by chance too, so labels without meaning also have such directions.

    >>> mean_directions(torch.tensor([[0.0, 1.0], [0.0, 3.0], [4.0, 2.0]]), torch.tensor([0, 0, 1])).abs()
    tensor([[1., 0.]])
    """
    x, of, share = clouds(acts, labels, None)
    _, sizes, directions = torch.linalg.svd(class_means(x, of, share), full_matrices=False)
    return directions[sizes > 1e-6 * x.norm(dim=1).max()].to(acts.dtype)  # below that is rounding


def random_directions(acts: Float[Tensor, "row d"], share: float, *, seed: int = 0) -> Float[Tensor, "direction d"]:
    """Return random orthonormal directions, as many as hold at least ``share`` of the variance: the control."""
    if not 0 < share <= 1:
        raise ValueError(f"share must lie above 0 and at most at 1, got {share}.")
    x, _, _ = clouds(acts, torch.zeros(len(acts)), None)
    noise = torch.randn(x.shape[1], x.shape[1], generator=Generator().manual_seed(seed), dtype=x.dtype)
    basis = torch.linalg.qr(noise)[0]
    held = (x @ basis).square().sum(0).cumsum(0) / x.square().sum()
    return basis.T[: int((held < share).sum()) + 1].to(acts.dtype)
