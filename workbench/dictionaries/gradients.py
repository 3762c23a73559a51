"""Two gradients that differ from autograd's on purpose."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class _Tangent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, W: Tensor) -> Tensor:
        ctx.save_for_backward(W)
        return W

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (W,) = ctx.saved_tensors
        return torch.addcmul(grad, torch.linalg.vecdot(grad, W)[:, None], W, value=-1)


def tangent(W: Float[Tensor, "n_features d"]) -> Float[Tensor, "n_features d"]:
    """Return ``W``, whose rows have norm one, dropping what of its gradient would only change those norms.

    Left in, that part would be undone by renormalising, but not before it had filled Adam's moments.
    """
    return _Tangent.apply(W)  # pyright: ignore[reportReturnType]


class _Reachable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z.relu()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (z,) = ctx.saved_tensors
        return torch.where((z > 0) | (grad < 0), grad, 0)


def reachable_relu(z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return ``relu(z)``, letting the gradient through at zero wherever it asks for a larger value.

    With the plain ReLU a feature whose pre-activation is negative everywhere has no gradient and stays dead;
    without any ReLU it could lower its loss as a negative code, which it will never have when it counts.
    """
    return _Reachable.apply(z)  # pyright: ignore[reportReturnType]
