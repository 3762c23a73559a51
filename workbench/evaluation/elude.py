"""What labelled attributes explain of a model's outputs, and what unlabelled features of its activations add.

ELUDE (Ramaswamy et al. 2022, arXiv 2206.07690), in two steps; all shares are of rows that neither step has seen.

1. A linear model from few attributes to the outputs. They are chosen one after another, as many as cross-validation
   asks for (ours): the lasso would shrink their weights, and leave a part of every attribute in the remainder.
2. A linear model from activations to what is left, of a rank as low as one likes: ridge regression, then the
   directions of output in which its fit varies most (reduced-rank ridge regression, Mukherjee and Zhu 2011). Each
   is an unlabelled feature: a direction to read the activations with, and one to write to the outputs.

Unlabelled features that mean something explain another model's outputs too: ``elude(attributes,
found.features(acts), outputs_of_the_other)`` measures it.
"""

from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.evaluation.rows import judges
from workbench.evaluation.search import forward

FOLDS = 10
"""Stretches of rows in the choice of attributes."""


@dataclass(frozen=True)
class Elude:
    """Outputs taken apart: a labelled part, and unlabelled features for the remainder."""

    shares: Float[Tensor, " step"]
    """Share of the variance of the outputs explained by the attributes (first) and with the first 1, 2, … unlabelled
    features as well. On held-out rows, so it may fall below 0, or from one step to the next."""

    weights: Float[Tensor, "attribute d_out"]
    """What one unit of an attribute adds to each output; rows of 0 are attributes that were not chosen."""

    reads: Float[Tensor, "d_model rank"]
    """Directions that read the unlabelled features, the one that explains most first."""

    writes: Float[Tensor, "rank d_out"]
    """What one unit of each adds to the outputs; of length 1, and orthogonal."""

    centre: Float[Tensor, " d_model"]
    """The activation at which the unlabelled features are 0: the mean of the rows they were fitted to."""

    @property
    def labelled(self) -> float:
        """The share that the attributes explain."""
        return float(self.shares[0])

    def features(self, acts: Float[Tensor, "row d_model"]) -> Float[Tensor, "row rank"]:
        """Return the values of the unlabelled features."""
        return (acts - self.centre) @ self.reads

    def to_frame(self) -> pd.DataFrame:
        """Return one row per rank, 0 being the attributes alone: the share explained, and what the rank adds."""
        shares = self.shares.double()
        gains = shares.diff(prepend=shares.new_zeros(1))
        return pd.DataFrame({"rank": range(len(shares)), "share": shares.numpy(), "gain": gains.numpy()})


def elude(
    attributes: Float[Tensor, "row attribute"],
    acts: Float[Tensor, "row d_model"],
    outputs: Float[Tensor, "row d_out"],
    *,
    rank: int = 4,
    held_out: Bool[Tensor, " row"] | None = None,
    seed: int = 0,
) -> Elude:
    """Return how much of ``outputs`` is explained by ``attributes``, and by low-rank features of ``acts`` besides.

    Args:
        attributes: Labels as numbers: 0 and 1, or how much there is of each.
        acts: Activations of the model; or whatever the unlabelled features should be read from.
        outputs: Of the model, on the same rows. Logits have a common part that means nothing: take its mean off.
        rank: The most unlabelled features to add; activations or outputs that are narrower have fewer.
        held_out: Rows that judge; a random quarter by default.
        seed: Of that quarter.
    """
    tables = {"attributes": attributes, "acts": acts, "outputs": outputs}
    if len({len(table) for table in tables.values()}) > 1 or not all(table.numel() for table in tables.values()):
        told = ", ".join(f"{name} {tuple(table.shape)}" for name, table in tables.items())
        raise ValueError(f"elude takes attributes, activations and outputs of the same rows; got {told}.")
    if wrong := [name for name, table in tables.items() if not bool(table.isfinite().all())]:
        raise ValueError(f"elude takes finite numbers, but there is NaN or infinity among the {' and '.join(wrong)}.")
    if rank < 0:
        raise ValueError(f"rank, the most unlabelled features to add, is 0 or more; got {rank}.")
    rank = min(rank, acts.shape[1], outputs.shape[1])
    judging = judges(len(acts), held_out, seed)
    # Everything about the means of the rows that are fitted.
    (a, a_new), (x, x_new), (y, y_new) = (_centred(table.detach().cpu().double(), judging) for table in tables.values())
    variance = float(y_new.square().sum())
    if min(variance, float(y.square().sum())) <= 0:
        raise ValueError("The outputs must vary, among the rows held out too: there is nothing to explain.")

    weights = _few(a, y)
    reads, writes = _low_rank(x, y - a @ weights, rank)
    left = y_new - a_new @ weights
    values = x_new @ reads
    errors = [float((left - values[:, :r] @ writes[:r]).square().sum()) for r in range(rank + 1)]
    shares = torch.tensor([1 - error / variance for error in errors])
    centre = acts.detach()[~judging.to(acts.device)].double().mean(0)
    return Elude(shares, weights.to(outputs), reads.to(acts), writes.to(outputs), centre.to(acts))


def _centred(table: Tensor, judging: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows to fit and those that judge, less the mean of the former; 0 where the former are all alike."""
    fitted = table[~judging]
    offsets = table - fitted.mean(0)
    # A constant less its mean may leave its last digits, which least squares would blow up.
    alike = offsets[~judging].square().sum(0) <= 1e-20 * fitted.square().sum(0)
    offsets[:, alike] = 0
    return offsets[~judging], offsets[judging]


def _few(a: Tensor, y: Tensor) -> Tensor:
    """Return weights [attribute, d_out] that are 0 for all but the attributes chosen."""
    weights = a.new_zeros(a.shape[1], y.shape[1])
    varied = a.square().sum(0).nonzero()[:, 0]
    if not len(varied):
        return weights
    order, r, share = _path(a[:, varied], y)
    # Neighbours may be of one document, so that each fold is a stretch of rows.
    errors = []
    for judging in torch.arange(len(a)).tensor_split(FOLDS):
        fitted = torch.ones(len(a), dtype=torch.bool).index_fill_(0, judging, False)
        (u, u_new), (v, v_new) = (_centred(table, ~fitted) for table in (a[:, varied], y))
        errors.append(_errors(u_new, v_new, *_path(u, v)))
    # The fewest that are as good as the best, but for the standard error of the difference between folds.
    paths = torch.stack([path[: min(map(len, errors))] for path in errors])
    worse = paths - paths[:, paths.mean(0).argmin()][:, None]
    few = int((worse.mean(0) <= worse.std(0) / FOLDS**0.5).int().argmax())
    few = min(few, len(order))
    chosen = varied[order[:few]]
    weights[chosen] = torch.linalg.solve_triangular(r[:few, :few], share[:few], upper=True)
    return weights


def _path(a: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return attributes from the best on, and R and Q'y of their QR decomposition: least squares of every prefix."""
    # Attributes and outputs in a basis of the attributes: all products are the same, and rows are few.
    q, r = torch.linalg.qr(a)
    order = forward(r, q.T @ y, a.shape[1])
    order = order[a[:, order].any(0)]
    q, r = torch.linalg.qr(a[:, order])
    return order, r, q.T @ y


def _errors(a: Tensor, y: Tensor, order: Tensor, r: Tensor, share: Tensor) -> Tensor:
    """Return the mean squared error on new rows of none, the first, the first two … of the attributes."""
    axes = torch.linalg.solve_triangular(r, a[:, order], upper=True, left=False)
    left, errors = y, [y.square().mean()]
    for axis, by in zip(axes.T, share, strict=True):
        left = left - axis[:, None] * by
        errors.append(left.square().mean())
    return torch.stack(errors)


def _low_rank(x: Tensor, y: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return directions [d_model, rank] that read, and orthonormal ones [rank, d_out] that write."""
    from sklearn.linear_model import RidgeCV

    size = float(x.square().sum(0).max())
    penalties = [size * 10.0**power for power in range(-8, 1)]
    ridge = RidgeCV(penalties, fit_intercept=False).fit(x.numpy(), y.numpy())
    full = torch.from_numpy(ridge.coef_).reshape(y.shape[1], x.shape[1]).T
    # With the penalty as rows more, ridge regression is least squares, whose best fit of a rank is the projection
    # of the full fit on its leading directions.
    gram = full.T @ (x.T @ (x @ full)) + torch.as_tensor(ridge.alpha_) * full.T @ full
    writes = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :rank]
    return full @ writes, writes.T
