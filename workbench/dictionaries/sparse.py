"""Products with sparse codes, and their gradients, at the cost of what is active.

Of ``n_features`` features only ``k`` are active on an activation. Dense autograd spends six products of size
batch x d x n_features on one step; here the encoder's pre-activations are the only one. The decoder and every
gradient are sums over the batch x k *occurrences* of active features, written as ``embedding_bag``, which
gathers, scales and adds rows in one pass.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCKS = 8
"""Columns that share one maximum in the first stage of ``largest``."""

BUFFER = 2**21
"""Pre-activations held at a time on a CPU: what stays in cache and is not paid for again as fresh memory."""


def largest(x: Float[Tensor, "batch n_features"], k: int) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """Return the ``k`` largest entries of each row and their columns, unsorted and exact.

    The ``k`` largest lie within the ``k`` blocks of largest maximum: any entry outside them is at most as
    large as ``k`` others. So one cheap pass for the maxima leaves a small selection to ``torch.topk``.
    """
    n_features = x.shape[-1]
    if n_features % BLOCKS or n_features < 2 * BLOCKS * k:
        return x.topk(k, sorted=False)
    n_blocks = n_features // BLOCKS
    # Block j holds columns j, j + n_blocks, …: the maxima are then elementwise over contiguous memory.
    blocks = x.view(-1, BLOCKS, n_blocks).amax(1).topk(k, sorted=False).indices
    columns = (blocks[:, None] + torch.arange(0, n_features, n_blocks, device=x.device)[:, None]).flatten(1)
    values, chosen = x.gather(1, columns).topk(k, sorted=False)
    return values, columns.gather(1, chosen)


@torch.no_grad()
def strongest(
    x: Float[Tensor, "batch d_in"],
    W: Float[Tensor, "n_features d_in"],
    b: Float[Tensor, " n_features"],
    k: int,
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """Return the ``k`` largest of ``x @ W.T + b`` per row, without keeping the whole product or a gradient."""
    if x.device.type != "cpu":
        values, indices = largest(torch.addmm(b, x, W.T), k)
        return values.to(x.dtype), indices
    rows = max(1, BUFFER // len(W))
    buffer = x.new_empty(min(rows, len(x)), len(W))
    values = x.new_empty(len(x), k)
    indices = torch.empty(len(x), k, dtype=torch.long, device=x.device)
    for start in range(0, len(x), rows):
        here = slice(start, start + rows)
        pre = torch.addmm(b, x[here], W.T, out=buffer[: len(x[here])])
        values[here], indices[here] = largest(pre, k)
    return values, indices


@torch.no_grad()
def strongest_of_all(
    x: Float[Tensor, "batch d_in"],
    W: Float[Tensor, "n_features d_in"],
    b: Float[Tensor, " n_features"],
    total: int,
) -> tuple[Float[Tensor, "batch c"], Int[Tensor, "batch c"], Bool[Tensor, "batch c"]]:
    """Return the strongest of ``x @ W.T + b`` per row, and a mask of the ``total`` largest of the whole product.

    Each row offers twice its share. That holds all of the largest, unless a row offers nothing below the least of
    them: such rows then offer twice as much, and the others fill up with minus infinity. Elsewhere than on a CPU the
    question would hold up the device: there a row offers four times its share once and for all, and what it has
    beyond goes to the others, as in the sharded selection of Gao et al. (2024).
    """
    patient = x.device.type == "cpu"
    c = min((2 if patient else 4) * -(-total // max(1, len(x))), len(W))
    values, indices = strongest(x, W, b, c)
    while True:
        least, chosen = values.flatten().topk(total, sorted=False)
        ask = patient and total and c < len(W)
        more = (values.amin(1) > least.min()).nonzero().squeeze(1) if ask else chosen[:0]
        if not len(more):
            kept = torch.zeros(values.numel(), dtype=torch.bool, device=x.device)
            return values, indices, kept.scatter_(0, chosen, True).view_as(values)
        c = min(2 * c, len(W))
        values = F.pad(values, (0, c - values.shape[1]), value=-torch.inf)
        indices = F.pad(indices, (0, c - indices.shape[1]))
        values[more], indices[more] = strongest(x[more], W, b, c)


def compressed(
    codes: Callable[[Tensor], Tensor], x: Float[Tensor, "batch d_in"], n_features: int
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """Return the nonnegative dense ``codes(x)`` in as many slots as the fullest row needs, at least one."""
    values, indices = [], []
    for part in x.split(max(1, BUFFER // n_features)):
        dense = codes(part)
        full = int((dense.detach() > 0).sum(1).max()) if len(part) else 0
        of_part = largest(dense, max(1, full))
        values.append(of_part[0])
        indices.append(of_part[1])
    k = max(part.shape[1] for part in values)
    padded = ([F.pad(part, (0, k - part.shape[1])) for part in parts] for parts in (values, indices))
    return tuple(map(torch.cat, padded))  # pyright: ignore[reportReturnType]


def sums_by_feature(
    table: Float[Tensor, "batch d"],
    weights: Float[Tensor, "batch k"],
    indices: Int[Tensor, "batch k"],
    n_features: int,
) -> Float[Tensor, "n_features d"]:
    """Return ``dense(weights).T @ table``: for each feature, the weighted sum of the rows where it occurs."""
    features, weights, rows = indices.flatten(), weights.flatten(), None
    if table.device.type == "cpu" and len(rows := weights.nonzero().squeeze(1)) < len(weights):
        features, weights = features[rows], weights[rows]  # empty slots, of which a batch may have more than full ones
    # Narrow keys sort twice as fast; stable, so that equal runs add in equal order.
    features, order = features.int().sort(stable=True)
    first = torch.searchsorted(features, torch.arange(n_features, dtype=torch.int32, device=table.device))
    rows = (order if rows is None else rows[order]) // indices.shape[1]
    return F.embedding_bag(rows, table, first, mode="sum", per_sample_weights=weights[order])


class _Encode(torch.autograd.Function):
    """Attach the gradient of ``x @ W.T + b`` at ``indices`` to values that are already known."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor, values: Tensor, indices: Tensor) -> Tensor:
        ctx.save_for_backward(x, W, indices)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, W, indices = ctx.saved_tensors
        dx = dW = db = None
        if ctx.needs_input_grad[0]:
            dx = F.embedding_bag(indices, W, mode="sum", per_sample_weights=grad)
        if ctx.needs_input_grad[1]:
            dW = sums_by_feature(x, grad, indices, len(W))
        if ctx.needs_input_grad[2]:
            db = grad.new_zeros(len(W)).scatter_add_(0, indices.flatten(), grad.flatten())
        return dx, dW, db, None, None


def encode(
    x: Float[Tensor, "batch d_in"],
    W: Float[Tensor, "n_features d_in"],
    b: Float[Tensor, " n_features"],
    values: Float[Tensor, "batch k"],
    indices: Int[Tensor, "batch k"],
) -> Float[Tensor, "batch k"]:
    """Return ``values``, which are ``x @ W.T + b`` at ``indices``, with the gradient they would have had."""
    return _Encode.apply(x, W, b, values, indices)  # pyright: ignore[reportReturnType]


class _DecoderGradient(torch.autograd.Function):
    """Pass ``y`` through and give ``W`` the gradient of ``y = dense(values) @ W``."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, W: Tensor, values: Tensor, indices: Tensor) -> Tensor:
        ctx.save_for_backward(values, indices)
        ctx.n_features = len(W)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, indices = ctx.saved_tensors
        dW = sums_by_feature(grad, values, indices, ctx.n_features) if ctx.needs_input_grad[1] else None
        return grad, dW, None, None


def decode(
    values: Float[Tensor, "batch k"], indices: Int[Tensor, "batch k"], W: Float[Tensor, "n_features d_out"]
) -> Float[Tensor, "batch d_out"]:
    """Return ``dense(values) @ W``, differentiable in ``values`` and ``W``."""
    # embedding_bag's own gradient is fast for the values and slow for W, so W takes the other road.
    y = F.embedding_bag(indices, W.detach(), mode="sum", per_sample_weights=values)
    return _DecoderGradient.apply(y, W, values.detach(), indices)  # pyright: ignore[reportReturnType]
