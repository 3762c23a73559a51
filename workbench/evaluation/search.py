"""The search for a few columns that explain what many do."""

import torch
from torch import Tensor


def forward(pool: Tensor, targets: Tensor, number: int) -> Tensor:
    """Return columns of ``pool``, each the best beside those before it (orthogonal least squares, Chen et al. 1989).

    The best lowers the squared error of a linear fit of ``targets`` the most. There are fewer than ``number`` where
    the rest is a sum of those chosen, but always one. Columns and targets, [row, column] both, are centred.
    """
    left, wanted = pool, targets
    start = pool.square().sum(0)
    order: list[int] = []
    for _ in range(number):
        norm = left.square().sum(0)
        # What lies in the span of those chosen is left as rounding errors, which explain nothing.
        fresh = norm > 1e-9 * start
        if order and not fresh.any():
            break
        gain = (left.T @ wanted).square().sum(1) / norm.clamp_min(1e-300)
        best = int(torch.where(fresh, gain, -1.0).argmax())
        order.append(best)
        axis = left[:, best] / norm[best].sqrt().clamp_min(1e-300)
        left = left - axis[:, None] * (axis @ left)
        wanted = wanted - axis[:, None] * (axis @ wanted)
    return torch.tensor(order)
