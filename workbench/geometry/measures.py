"""What a cloud of activations says about labels that are known: variance explained, collapse, parallel differences.

Pure functions of tensors, computed in double precision; nothing here knows of models. How much of a representation
a label explains is no evidence of how well, or whether, a network uses it (Lampinen et al. 2024). Axes: [row, d]
for activations, [row] or [row, label] for labels.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor


@dataclass(frozen=True)
class VarianceExplained:
    """How much of the variance of activations lies between the classes of a label."""

    share: float
    """R² of the class means: the variance between classes over all variance, summed over the axes of the space."""

    null: Float[Tensor, " permutation"]
    """The same of labels dealt out anew at random; above 0, by about (classes - 1) / (rows - 1)."""

    p: float
    """Share of the permutations, the true labels among them, whose R² is at least this one."""


def variance_explained(
    acts: Float[Tensor, "row d"], labels: Int[Tensor, " row *label"], *, permutations: int = 100, seed: int = 0
) -> VarianceExplained:
    """Return the variance of ``acts`` that ``labels`` explain; several labels jointly, one class per combination.

    >>> acts = torch.tensor([[3.0, 1.0], [3.0, -1.0], [-3.0, 1.0], [-3.0, -1.0]])
    >>> variance_explained(acts, torch.tensor([0, 0, 1, 1])).share
    0.9
    """
    x, of, weight = clouds(acts, labels, None)
    total = float(x.square().sum())

    def share(of: Tensor) -> float:
        return float(class_means(x, of, weight)[of].square().sum()) / total

    generator = Generator().manual_seed(seed)
    true = share(of)
    null = torch.tensor([share(of[torch.randperm(len(of), generator=generator)]) for _ in range(permutations)])
    # Another order of the same sum may differ in its last digits.
    as_large = int((null >= true - 1e-7).sum())
    return VarianceExplained(true, null, (1 + as_large) / (1 + permutations))


@dataclass(frozen=True)
class Collapse:
    """How far the activations of a class have become one point."""

    ratio: float
    """Variance within classes over variance between them: 0 where each class is a point."""

    within: float
    """Mean squared distance of a row from the mean of its class."""

    between: float
    """Mean squared distance of a row's class mean from the mean of all rows."""

    rows: Float[Tensor, " row"]
    """Each row's squared distance from the mean of its class, over ``between``: their mean is ``ratio``."""


def collapse(
    acts: Float[Tensor, "row d"], labels: Int[Tensor, " row *label"], *, weight: Float[Tensor, " row"] | None = None
) -> Collapse:
    """Return how far ``acts`` collapse onto the means of their classes (Laurent et al. 2023; the ratio is ours).

    Every mean counts a row as often as ``weight`` says; all equally by default.
    """
    x, of, share = clouds(acts, labels, weight)
    means = class_means(x, of, share)[of]
    apart = (x - means).square().sum(1)
    within, between = float(share @ apart), float(share @ means.square().sum(1))
    if between <= 1e-12 * (within + between):
        raise ValueError("collapse compares with the variance between classes, which is 0 here: give other labels.")
    return Collapse(within / between, within, between, (apart / between).to(acts.dtype))


@dataclass(frozen=True)
class LinearOrigin:
    """Whether each concept is one direction, and independent concepts are orthogonal ones."""

    same: Float[Tensor, " concept"]
    """Mean cosine between the difference vectors of one concept, of all pairs that nothing else tells apart."""

    different: Float[Tensor, "concept concept"]
    """Mean |cosine| between a difference vector of one concept and one of another; the diagonal is 1."""

    shuffled: Float[Tensor, " concept"]
    """As ``same``, after the vectors have been dealt to the states of the concepts at random: the control."""


def linear_origin(
    vectors: Float[Tensor, "token d"], concepts: Int[Tensor, "token concept"], *, seed: int = 0
) -> LinearOrigin:
    """Return how parallel the difference vectors of binary concepts are (Jiang et al. 2024).

    A difference vector of a concept is the vector of a token that has it minus that of the token which agrees in
    every other concept and lacks it. Tokens without such a partner are left out.

    Args:
        vectors: For instance the unembedding of each token.
        concepts: 0 or 1 for each concept of each token; no two tokens agree in all.
        seed: Of the control.
    """
    if len(vectors) != len(concepts) or not bool(((concepts == 0) | (concepts == 1)).all()):
        raise ValueError(
            f"linear_origin takes a vector and concepts of 0 or 1 for each token; got {len(vectors)} vectors and "
            f"{len(concepts)} rows of concepts with the values {concepts.unique().tolist()}."
        )
    states = [tuple(state) for state in concepts.tolist()]
    at = {state: token for token, state in enumerate(states)}
    if len(at) < len(states):
        raise ValueError(
            f"Tokens must differ in some concept, but {len(states) - len(at)} of {len(states)} repeat one."
        )
    pairs = []
    for i in range(concepts.shape[1]):
        partner = {s: (*s[:i], 0, *s[i + 1 :]) for s in states if s[i] == 1}
        pairs.append([(at[one], at[other]) for one, other in partner.items() if other in at])
        if len(pairs[-1]) < 2:
            raise ValueError(f"Concept {i} alone tells {len(pairs[-1])} pair(s) of tokens apart; two are the least.")

    def unit(vectors: Tensor) -> list[Tensor]:
        ends = [torch.tensor(pair).T for pair in pairs]
        return [F.normalize(vectors[one] - vectors[other], dim=1) for one, other in ends]

    def same(units: list[Tensor]) -> Tensor:
        return torch.stack([(u.sum(0).square().sum() - u.square().sum()) / (len(u) * (len(u) - 1)) for u in units])

    x = vectors.double()
    units = unit(x)
    different = torch.stack([torch.stack([(one @ other.T).abs().mean() for other in units]) for one in units])
    dealt = unit(x[torch.randperm(len(x), generator=Generator().manual_seed(seed))])
    kind = vectors.dtype
    return LinearOrigin(same(units).to(kind), different.fill_diagonal_(1).to(kind), same(dealt).to(kind))


def clouds(acts: Tensor, labels: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the centred rows, the number of each row's class, and weights that sum to 1."""
    share = acts.new_ones(len(acts)).double() if weight is None else weight.double()
    if not len(acts) == len(labels) == len(share) or len(acts) < 2:
        raise ValueError(
            f"Two or more rows are needed, each with its label, and its weight where there are weights; got "
            f"{len(acts)} rows, {len(labels)} labels, {'no' if weight is None else len(weight)} weights."
        )
    if not (bool((share >= 0).all()) and 0 < float(share.sum()) < math.inf):
        raise ValueError("Weights say how often a row occurs: none is negative, and their sum is above 0 and finite.")
    share = share / share.sum()
    x = acts.double() - acts[0].double()  # a common offset, however large, costs no digits
    x = x - share @ x
    if not 0 < float(share @ x.square().sum(1)) < math.inf:
        raise ValueError("The rows must differ, and all be of finite numbers: there is no variance to take apart.")
    return x, labels.reshape(len(labels), -1).unique(dim=0, return_inverse=True)[1], share


def class_means(x: Tensor, of: Tensor, share: Tensor) -> Tensor:
    """Return the mean of each class, of what ``clouds`` returns."""
    sums = x.new_zeros(int(of.max()) + 1, x.shape[1]).index_add_(0, of, share[:, None] * x)
    return sums / share.new_zeros(len(sums)).index_add_(0, of, share).clamp_min(1e-300)[:, None]
