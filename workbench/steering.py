"""Directions into edits: what is added to the residual stream, and the control it is compared with.

The edits are functions for ``models.edited`` and ``models.generate``; this room knows nothing of how they are
applied. Positions are absolute, so an edit acts alike on a prompt, in cached generation and in a batch.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.models import Context, Edit

SALT = 7_919_000_000


def add(vector: Float[Tensor, " d_model"]) -> Edit:
    """Return the edit that adds ``vector`` at every position but the first (activation addition, Turner et al. 2023).

    The first is the beginning-of-text token, an outlier in most models that stands for no word.
    """

    def edit(acts: Tensor, context: Context) -> Tensor:
        if vector.shape[-1] != acts.shape[-1]:
            raise ValueError(f"The vector to add has {vector.shape[-1]} numbers, but this site has {acts.shape[-1]}.")
        return acts + vector.to(acts) * (context.positions > 0).unsqueeze(-1)

    return edit


def random_direction(direction: Float[Tensor, " d_model"], seed: int) -> Float[Tensor, " d_model"]:
    """Return a direction drawn uniformly from the sphere, as long as ``direction``: the floor of any effect."""
    # Salted, so that it is not the very direction a reader drew with the same seed.
    noise = torch.randn(direction.shape, generator=torch.Generator().manual_seed(seed + SALT))
    return noise.to(direction) * (direction.norm() / noise.norm())
