"""What units do for the model's loss, where a label holds and elsewhere, beside as many random units.

A probe tells what can be read off units; whether the model reads it there is told by taking it away (the step that
follows sparse probing in Gurnee et al. 2023, arXiv 2305.01610). Units are the axes of a stream or the features of a
dictionary; the neurons of an MLP of ReLUs are those of the ``ReLU`` transcoder that has its weights. Axes:
[batch, pos] for tokens, [row, unit] for activations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from workbench.dictionaries import Codes, Dictionary, spliced
from workbench.dictionaries.fidelity import FORWARD, only
from workbench.models import Edit, Site, TransformerBridge, edited
from workbench.models.forward import checked_tokens, run

Part = tuple[Tensor, Tensor, Tensor]
"""Some texts: their tokens, where units are ablated, and the label, all [batch, pos]."""


@dataclass(frozen=True)
class LossChange:
    """What an ablation does to the loss on some tokens."""

    tokens: int
    """How many tokens are predicted from."""

    loss: float
    """Loss of the model as it is, of the token that follows, in nats per token."""

    change: float
    """How much that loss rises without the units."""

    random: Float[Tensor, " draw"]
    """How much it rises without as many other units, for each draw of them: the control."""


@dataclass(frozen=True)
class Ablation:
    """What units do for the loss, where a label holds and elsewhere."""

    labelled: LossChange
    """On tokens with the label."""

    others: LossChange
    """On tokens without it."""

    def to_frame(self) -> pd.DataFrame:
        """Return two lines, with the label and without: the change, and mean and deviation of the random ones."""
        return pd.DataFrame(
            [
                {
                    "label": held,
                    "tokens": side.tokens,
                    "loss": side.loss,
                    "change": side.change,
                    "random": float(side.random.mean()),
                    "random sd": float(side.random.std()),
                }
                for held, side in ((True, self.labelled), (False, self.others))
            ]
        )


@torch.no_grad()
def ablate(
    model: TransformerBridge,
    of: Site | Dictionary,
    units: Int[Tensor, " unit"],
    tokens: Int[Tensor, "batch pos"],
    label: Bool[Tensor, "batch pos"],
    *,
    where: Bool[Tensor, "batch pos"] | None = None,
    draws: int = 16,
    seed: int = 0,
) -> Ablation:
    """Return how much the loss rises with ``units`` at their means, on tokens with the label and on those without.

    The mean of a unit is that over all tokens of ``where``, and takes its place on each of them. The loss at a token is
    that of the next one, in nats, and counts where both are in ``where``. Of a dictionary, everything but the units
    stays, the part that it does not rebuild included.

    Args:
        model: The model.
        of: Whose the units are: a site, of whose activations they are axes (``z`` with its heads flattened), or a
            dictionary of named sites, one that it reads and one that it rebuilds.
        units: Which, each once, such as ``sparse_probe(…).by_k[8].units``; choose them on other texts.
        tokens: Texts, padded on the right.
        label: Whether each token has the label.
        where: The tokens that count. Leave out padding, and the beginning of the text, whose activations are unlike all
            others and would move the means. None is all.
        draws: How many times as many other units, which are not zero on all these tokens, are drawn and ablated.
        seed: Of the draws.
    """
    tokens, units = checked_tokens(model, tokens), torch.as_tensor(units)
    where, label = _checked(of, tokens, label, where, draws)
    size = max(1, FORWARD // tokens.shape[1])
    parts = list(zip(tokens.split(size), where.split(size), label.split(size), strict=True))
    if isinstance(of, Dictionary):
        of.check(model)
    mean, active = _means(model, of, parts)
    units, rest = _split(units.to(tokens.device), active)
    generator = Generator().manual_seed(seed)
    drawn = [rest[torch.randperm(len(rest), generator=generator)[: len(units)].to(rest.device)] for _ in range(draws)]
    before, counts = _loss(model, {}, parts)
    after = [_loss(model, _placed(of, partial(_fixed, chosen, mean)), parts)[0] for chosen in (units, *drawn)]
    change, *random = (loss - before for loss in after)
    return Ablation(
        *(
            LossChange(int(counts[i]), float(before[i]), float(change[i]), torch.stack(random)[:, i].float())
            for i in range(2)
        )
    )


def _checked(
    of: Site | Dictionary, tokens: Tensor, label: Tensor, where: Tensor | None, draws: int
) -> tuple[Tensor, Tensor]:
    """Return ``where`` and ``label`` on the device of ``tokens``, or say what is wrong."""
    if not isinstance(of, Site | Dictionary):
        raise TypeError(f"Units are those of a Site or of a Dictionary, got {type(of).__name__}.")
    if isinstance(of, Site) and of.stream == "pattern":
        raise ValueError(f"{of} has no units, but a number per pair of tokens; ablate those of Site({of.layer}, 'z').")
    where = torch.ones_like(tokens, dtype=torch.bool) if where is None else where
    for name, marks in (("label", label), ("where", where)):
        if marks.shape != tokens.shape or marks.dtype != torch.bool:
            raise ValueError(
                f"{name} says True or False of each token, {tuple(tokens.shape)}; got {tuple(marks.shape)} of "
                f"{marks.dtype}."
            )
    if draws < 2:
        raise ValueError(f"The control is two draws or more, which have a spread, got draws={draws}.")
    where, label = where.to(tokens.device), label.to(tokens.device)
    told = label[_counted(where)]
    if not 0 < int(told.sum()) < len(told):
        raise ValueError(
            f"ablate compares tokens with the label and without, which are followed by one more in where; got "
            f"{int(told.sum())} and {int((~told).sum())}."
        )
    return where, label


def _counted(where: Tensor) -> Tensor:
    """Return the tokens at which there is a loss."""
    return F.pad(where[:, :-1] & where[:, 1:], (0, 1))


def _split(units: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
    """Return the units, and those that may stand in for them."""
    n = len(active)
    if units.is_floating_point() or units.dtype == torch.bool:
        raise TypeError(f"units are whole numbers, got {units.dtype}; of a mask give mask.nonzero()[:, 0].")
    if not len(units) or units.unique().numel() != len(units) or int(units.min()) < 0 or int(units.max()) >= n:
        raise ValueError(f"units are one or more of 0..{n - 1}, each once; got {units.tolist()}.")
    rest = active.clone()
    rest[units] = False
    if int(rest.sum()) < len(units):
        raise ValueError(
            f"The control needs as many other units that are not zero on all these tokens, and of {n} there are "
            f"{int(rest.sum())} beside the {len(units)} given; give fewer."
        )
    return units.long(), rest.nonzero()[:, 0]


def _placed(of: Site | Dictionary, change: Callable) -> dict[Site, Edit]:
    """Return the edits that put what ``change`` makes of activations, or of codes, in their place."""
    if isinstance(of, Dictionary):
        return spliced(of, change=change)
    return {of: lambda acts, context: change(acts.flatten(2)).view_as(acts)}


def _means(model: TransformerBridge, of: Site | Dictionary, parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
    """Return the mean of each unit, and whether it is ever other than zero."""
    acts: list[Tensor] = []

    def look(x: Tensor | Codes) -> Tensor | Codes:
        acts[:] = [x.dense() if isinstance(x, Codes) else x]
        return x

    total, active, rows = torch.zeros(()), torch.zeros((), dtype=torch.bool), 0
    for tokens, where, _ in parts:
        with edited(model, _placed(of, look)):
            run(model, tokens)
        (here,) = (x[where].double() for x in acts)
        total, active, rows = (
            total.to(here) + here.sum(0),
            active.to(here.device) | (here != 0).any(0),
            rows + len(here),
        )
    return total / rows, active


def _fixed(units: Tensor, mean: Tensor, x: Tensor | Codes) -> Tensor | Codes:
    """Return ``x`` with ``units`` at their means."""
    if isinstance(x, Tensor):
        return x.index_copy(-1, units, mean[units].to(x).expand(*x.shape[:-1], -1))
    *batch, _ = x.values.shape
    values = x.values.masked_fill(torch.isin(x.indices, units), 0)
    values = torch.cat([values, mean[units].to(values).expand(*batch, -1)], -1)
    return Codes(values, torch.cat([x.indices, units.expand(*batch, -1)], -1), x.n_features)


def _loss(model: TransformerBridge, edits: dict[Site, Edit], parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
    """Return the mean loss with the label and without, and of how many tokens each is the mean."""
    total, counts = torch.zeros(2, dtype=torch.double), torch.zeros(2, dtype=torch.long)
    for tokens, where, label in parts:
        with edited(model, {site: only(where, edit) for site, edit in edits.items()}):
            logits = run(model, tokens)[:, :-1].float()
        nats = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view(len(tokens), -1)
        for i, side in enumerate((label, ~label)):
            here = (_counted(where) & side)[:, :-1]
            total[i] += nats[here].double().sum().cpu()
            counts[i] += here.sum().cpu()
    return total / counts, counts
