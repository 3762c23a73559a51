"""Gradients that differ from autograd's on purpose."""

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


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        active = z > threshold
        return torch.where(active, z, 0), active.sum(1).to(threshold.dtype).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_l0: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        z, threshold = ctx.saved_tensors
        near = (z - threshold).abs() < ctx.bandwidth / 2
        pull = torch.where(near, threshold * grad + grad_l0 / len(z), 0).sum(0)
        return torch.where(z > threshold, grad, 0), -pull / ctx.bandwidth, None


def jump(
    z: Float[Tensor, "batch n_features"], threshold: Float[Tensor, " n_features"], bandwidth: float
) -> tuple[Float[Tensor, "batch n_features"], Float[Tensor, ""]]:
    """Return ``z`` where it exceeds ``threshold``, else 0, and how many do, on average over the batch.

    Neither has a gradient in the threshold. In expectation over the batch both have one, which is estimated with a
    rectangle of width ``bandwidth`` about the threshold (Rajamanoharan et al. 2024, arXiv 2407.14435): for a ``z``
    within it, on either side, -threshold / bandwidth and -1 / bandwidth. ``z`` must therefore not be rectified.
    """
    return _Jump.apply(z, threshold, bandwidth)  # pyright: ignore[reportReturnType]
