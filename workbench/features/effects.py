"""What leaving a feature out does to what the model says, and to its loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from workbench.activations import ActivationStore, Rows
from workbench.dictionaries import Codes, Dictionary, spliced
from workbench.dictionaries.inputs import pick
from workbench.features.encoding import encoded
from workbench.models import Context, Site, TransformerBridge, edited, record
from workbench.models.forward import device_of, run
from workbench.models.readout import readout

NAMED = 10
"""Tokens that are named on either side of a feature's direct effect."""

PLACES = 8
"""Places of the store, evenly spread, at which effects are measured, ``STRETCH`` rows at each."""
STRETCH = 2048

WRITTEN = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
"""Streams that are, or are added to, the residual stream, and so reach the logits directly."""


@dataclass(frozen=True)
class Effect:
    """What leaving one feature out does, with everything else and the error of the dictionary kept."""

    loss: float
    """How much the loss rises, in nats: summed over each text, for each token where the feature was active."""

    kl: float
    """KL(model ‖ model without it) of the next token, where the feature was active, in nats."""

    tokens: int
    """How many tokens those are."""

    logits: pd.DataFrame
    """``token`` and ``change`` of its logit there, on average, the largest rises and falls."""


def texts(store: ActivationStore, bos: int | None) -> list[tuple[Rows, list[Tensor]]]:
    """Return stretches of the store, from the beginning of a text on, and the tokens of each text in them."""
    found = []
    for stretch in store.stretches(max(1, min(PLACES, len(store) // STRETCH)), STRETCH):
        rows = store.rows(stretch)
        found.append((rows, rows.texts(bos)))
    if not found:  # a few long texts: the beginning of the first is a text too
        rows = store.rows(slice(0, STRETCH))
        found.append((rows, rows.texts(bos)[:1]))
    return found


def direct_logits(
    model: TransformerBridge, W_dec: Float[Tensor, "n_features d"], sites: Sequence[Site], store: ActivationStore
) -> dict[str, Tensor]:
    """Return the tokens whose logits each feature raises and lowers most by itself, past all later blocks."""
    if len(sites) != 1 or sites[0].stream not in WRITTEN:
        return {}
    bos = None if model.tokenizer is None else model.tokenizer.bos_token_id
    tokens = pad_sequence([text for _, part in texts(store, bos) for text in part[:2]], batch_first=True)
    last = Site(model.cfg.n_layers - 1)
    resid = record(model, tokens, [last])[last].flatten(0, 1)
    effect = readout(model, resid[torch.linspace(0, len(resid) - 1, min(64, len(resid))).long()])
    raised, lowered = [], []
    for part in W_dec.to(effect).split(1024):
        logits = part @ effect
        raised.append(logits.topk(min(NAMED, logits.shape[1]), 1))
        lowered.append(logits.topk(min(NAMED, logits.shape[1]), 1, largest=False))
    return {
        f"{name}{what}": torch.cat([getattr(one, key) for one in found]).cpu()
        for name, found in (("raised", raised), ("lowered", lowered))
        for what, key in (("", "indices"), ("_by", "values"))
    }


def first_order(
    model: TransformerBridge,
    dictionary: Any,
    sites_in: tuple[Site, ...],
    sites_out: tuple[Site, ...],
    store: ActivationStore,
) -> dict[str, Tensor]:
    """Return how much the loss rises when each feature is left out, to first order, as ``Effect.loss`` measures it.

    The gradient of the loss where the dictionary writes, times what the feature writes: the attribution of Syed et al.
    (2023, arXiv 2310.10348) at every token of a sample. What the model computes from, and what it hardly notices.
    """
    if len(sites_out) != 1:
        return {}
    n_features = len(dictionary.W_dec)
    total = torch.zeros(n_features, dtype=torch.double)
    count = torch.zeros(n_features, dtype=torch.long)
    bos = None if model.tokenizer is None else model.tokenizer.bos_token_id
    for rows, parts in texts(store, bos):
        grads = torch.cat(
            [
                gradient[len(text) - kept : len(text)]
                for text, kept, gradient in zip(
                    parts, _kept(rows), loss_gradients(model, parts, sites_out[0]), strict=True
                )
            ]
        )
        effects, codes = removal(dictionary, pick(rows.acts, sites_in), grads)
        here = codes.values > 0
        total.index_add_(0, codes.indices[here], effects[here].double())
        count += torch.bincount(codes.indices[here], minlength=n_features)
    return {"loss_effect": (total / count.clamp_min(1)).float()}


def removal(dictionary: Any, x: Tensor, gradient: Tensor) -> tuple[Tensor, Codes]:
    """Return the first-order effect of leaving out each active feature of rows ``x``, and their codes."""
    codes = encoded(dictionary, x)
    along = torch.einsum("rkd,rd->rk", dictionary.W_dec.detach()[codes.indices], gradient.to(dictionary.W_dec))
    return -codes.values * along, codes


def loss_gradients(model: TransformerBridge, parts: Sequence[Tensor], site: Site) -> list[Tensor]:
    """Return the gradient of each text's summed loss with respect to ``site``, [pos, d] for each."""
    found: list[Tensor] = []
    leaf: list[Tensor] = []

    def capture(acts: Tensor, context: Context) -> Tensor:
        leaf[:] = [acts.detach().requires_grad_()]
        return leaf[0]

    for some in (parts[i : i + 16] for i in range(0, len(parts), 16)):
        tokens = pad_sequence(list(some), batch_first=True).to(device_of(model))
        real = pad_sequence([torch.ones(len(text), dtype=torch.bool) for text in some], batch_first=True)[:, 1:]
        with torch.enable_grad(), edited(model, {site: capture}):
            logits = run(model, tokens)[:, :-1].float()
            losses = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
            (gradient,) = torch.autograd.grad(losses[real.flatten().to(losses.device)].sum(), leaf[0])
        found += [one[: len(text)].flatten(1).cpu() for one, text in zip(gradient, some, strict=True)]
    return found


def _kept(rows: Rows) -> list[int]:
    """Return how many rows each text of ``rows`` has."""
    return torch.cat([rows.begins, torch.tensor([len(rows.tokens)])]).diff().tolist()


@torch.no_grad()
def without(
    model: TransformerBridge, dictionary: Dictionary, feature: int, parts: Sequence[Tensor], words: Sequence[str]
) -> Effect:
    """Return what leaving out ``feature`` does on some texts, computed exactly."""

    def silenced(codes: Codes) -> Codes:
        return Codes(codes.values.masked_fill(codes.indices == feature, 0), codes.indices, codes.n_features)

    loss, kl, count = 0.0, 0.0, 0
    change = torch.zeros(model.cfg.d_vocab)
    for text in parts:
        tokens = text[None].to(device_of(model))
        acts = record(model, tokens, dictionary.sites_in)
        codes = dictionary.encode(pick({site: one[0].flatten(1) for site, one in acts.items()}, dictionary.sites_in))
        active = ((codes.indices == feature) & (codes.values > 0)).any(1)
        before = run(model, tokens)[0].float()
        with edited(model, spliced(dictionary, change=silenced)):
            after = run(model, tokens)[0].float()
        log_p, log_q = before.log_softmax(-1), after.log_softmax(-1)
        loss += float((log_p - log_q)[:-1].gather(1, tokens[0, 1:, None]).sum())
        kl += float((log_p.exp() * (log_p - log_q)).sum(-1)[active].sum())
        change += (after - before)[active].sum(0).cpu()
        count += int(active.sum())
    change /= max(count, 1)
    chosen = torch.cat([change.topk(NAMED).indices, change.topk(NAMED, largest=False).indices.flip(0)])
    table = pd.DataFrame({"token": [words[int(i)] for i in chosen], "change": change[chosen].tolist()})
    return Effect(loss / max(count, 1), kl / max(count, 1), count, table)
