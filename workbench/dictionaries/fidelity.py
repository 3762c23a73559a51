"""How much of the activations a dictionary keeps, at what cost, and what the model loses by it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.dictionaries.dictionary import Dictionary
from workbench.dictionaries.inputs import Batch
from workbench.dictionaries.splice import spliced
from workbench.models import Context, Edit, TransformerBridge, edited
from workbench.models.forward import checked_tokens, run

CHUNK = 4096
FORWARD = 1024
"""Tokens in a forward whose logits are compared: there are as many as the vocabulary has words, for each."""


@dataclass(frozen=True)
class Fidelity:
    """How much of a set of activations a dictionary keeps, and at what cost."""

    fvu: float
    """Fraction of variance unexplained, sum |y - dictionary(x)|² over sum |y - mean|², with the mean of this set: 0 is
    perfect, 1 is as good as the mean. Of several sites the mean, so that none counts for more."""

    l0: float
    """Mean number of features active on one activation."""

    dead: float
    """Share of features that were never active; of a small set, rare features are part of it."""

    by_site: tuple[float, ...]
    """``fvu`` at each of ``sites_out``."""


@torch.no_grad()
def fidelity(dictionary: Dictionary, x: Batch | Iterable[Batch]) -> Fidelity:
    """Return the fidelity of ``dictionary`` on activations, or on a finite stream of batches of them."""
    n, active = 0, 0
    origin = offsets = torch.zeros(dictionary.shape_out, dtype=torch.float64)
    squares = error = origin.sum(-1)
    fired = torch.zeros(dictionary.n_features, dtype=torch.bool)
    if not isinstance(x, Tensor | Mapping | Iterable):
        raise TypeError(
            f"fidelity takes activations or batches of them, got {type(x).__name__}; of an ActivationStore give "
            "store.rows(slice(None)).acts."
        )
    batches: Iterable[Any] = [x] if isinstance(x, Tensor | Mapping) else x
    for batch in batches:
        for part, y in zip(*(side.split(CHUNK) for side in dictionary.pair(batch)), strict=True):
            codes = dictionary.encode(part)
            left = y - dictionary.decode(codes) - dictionary.skip(part)
            error = error + left.double().square().sum((0, -1)).cpu()
            y = y.double().cpu()
            # Moments about a point near the mean: about zero they would drown in it where it is large.
            origin = y.mean(0) if n == 0 else origin
            offsets = offsets + (y - origin).sum(0)
            squares = squares + (y - origin).square().sum((0, -1))
            active += int((codes.values != 0).sum())
            fired |= codes.fired.cpu()
            n += len(part)
    variance = squares - offsets.square().sum(-1) / max(n, 1)
    if n < 2 or (variance <= 0).any():
        raise ValueError(
            f"fidelity needs at least 2 different activations to measure a variance, got {n} with variance "
            f"{float(variance.min()):g}."
        )
    fvu = (error / variance).flatten()
    return Fidelity(
        fvu=float(fvu.mean()),
        l0=active / n,
        dead=1 - float(fired.float().mean()),
        by_site=tuple(fvu.tolist()),
    )


@torch.no_grad()
def splice_kl(
    model: TransformerBridge,
    dictionary: Dictionary,
    tokens: Int[Tensor, "batch pos"],
    *,
    where: Bool[Tensor, "batch pos"] | None = None,
) -> Float[Tensor, "batch pos"]:
    """Return what the model loses at each token when it is given reconstructions, in nats.

    KL(model ‖ model with ``dictionary`` in the place of what it rebuilds), of the next token.

    Args:
        model: The model that the dictionary was trained on.
        dictionary: A dictionary of named sites, one that it reads and one that it rebuilds.
        tokens: Texts, padded on the right.
        where: The tokens at which it is put in; elsewhere the model keeps what it computes, and the loss is 0.
            Leave out padding, and the beginning of the text if the dictionary was trained without. None is all.
    """
    dictionary.check(model)
    tokens = checked_tokens(model, tokens)
    where = torch.ones_like(tokens, dtype=torch.bool) if where is None else where.to(tokens.device)
    lost = torch.zeros(tokens.shape, device=tokens.device)
    edits = spliced(dictionary, error="drop")
    size = max(1, FORWARD // tokens.shape[1])
    for part, chosen, nats in zip(tokens.split(size), where.split(size), lost.split(size), strict=True):
        log_p = run(model, part)[chosen].float().log_softmax(-1)
        with edited(model, {site: only(chosen, edit) for site, edit in edits.items()}):
            log_q = run(model, part)[chosen].float().log_softmax(-1)
        nats[chosen] = (log_p.exp() * (log_p - log_q)).sum(-1)
    return lost


def only(where: Tensor, edit: Edit) -> Edit:
    """Return ``edit`` at the chosen tokens alone."""

    def at(acts: Tensor, context: Context) -> Tensor:
        chosen = where.to(acts.device).view(*where.shape, *[1] * (acts.ndim - 2))
        return torch.where(chosen, edit(acts, context).to(acts), acts)

    return at
