"""What holds where a feature is strongly active, and where it is not: its strongest examples, and true quantiles.

The strongest examples of nearly any direction have something in common, and what they have is not what makes it active
elsewhere: the interpretability illusion (Bolukbasi et al. 2021, arXiv 2104.07143). So a label is to be measured on all
of the activations, by strength.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def by_strength(
    acts: Float[Tensor, " row"],
    holds: Float[Tensor, " row"] | Bool[Tensor, " row"],
    *,
    top: int = 20,
    n: int = 5,
) -> Float[Tensor, " _group"]:
    """Return the mean of ``holds`` over the ``top`` strongest activations, then over ``n`` equal parts of all.

    The parts go from the strongest to the weakest and hold as many activations each, or one less.

    Args:
        acts: Of a feature, or of any direction; it is active where they are positive.
        holds: Whether a label holds on the same rows, or how much of something is there.
        top: How many of the strongest come first.
        n: Parts of all activations.
    """
    if len(acts) != len(holds):
        raise ValueError(f"by_strength takes one value for each activation, got {len(acts)} and {len(holds)}.")
    active = int((acts > 0).sum())
    if not (1 <= top <= active and 1 <= n <= active):
        raise ValueError(
            f"top and n lie in 1..{active}, on how many rows it is active; got top={top} and n={n}. Take more rows, or "
            "fewer groups."
        )
    order = acts.argsort(descending=True, stable=True)[:active]
    return torch.stack([holds[part].float().mean() for part in (order[:top], *order.tensor_split(n))])
