"""What holds where a feature is strongly active, and where it is weakly so.

The strongest examples of nearly any direction have something in common, which need not be what makes it active
elsewhere: the interpretability illusion (Bolukbasi et al. 2021, arXiv 2104.07143). So a label is to be measured on all
of the activations, by strength.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def by_strength(
    acts: Float[Tensor, " row"], holds: Float[Tensor, " row"] | Bool[Tensor, " row"], *, n: int = 10
) -> Float[Tensor, " n"]:
    """Return the mean of ``holds`` over ``n`` equal parts of the activations, from the strongest to the weakest.

    >>> by_strength(torch.tensor([0.0, 4.0, 3.0, 2.0, 1.0]), torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]), n=2)
    tensor([1.0000, 0.5000])

    Args:
        acts: Of a feature, or of any direction; it is active where they are positive.
        holds: Whether a label holds on the same rows, or how much of something is there.
        n: How many parts; they hold as many activations each, or the later ones one less.
    """
    if len(acts) != len(holds):
        raise ValueError(f"by_strength takes one value for each row, got {len(acts)} rows and {len(holds)} values.")
    active = int((acts > 0).sum())
    if not 1 <= n <= active:
        raise ValueError(
            f"n must lie in 1..{active}, the rows on which it is active, got {n}; take more rows, or fewer parts."
        )
    order = acts.argsort(descending=True, stable=True)[:active]
    return torch.stack([holds[part].float().mean() for part in order.tensor_split(n)])
