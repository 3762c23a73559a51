"""What a model loses by what is put in the place of its activations."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.models import Edit, Site, TransformerBridge, edited
from workbench.models.forward import device_of, run

Put = Callable[[Tensor], Mapping[Site, Edit]]
"""From the tokens that count, a mask [text, pos], to the edits that change what the model computes there."""


@dataclass(frozen=True)
class Loss:
    """What the model loses by something in the place of activations."""

    ce: float
    """Cross-entropy of the text's next tokens, in nats; NaN where numbers overflow."""

    kl: float
    """KL(model ‖ model with it) of the next token, in nats."""


@torch.no_grad()
def losses(
    model: TransformerBridge, texts: Iterable[tuple[Tensor, Tensor, Tensor]], put: Mapping[str, Put | None]
) -> dict[str, Loss]:
    """Return the losses of the model as it is, "model", and of what is put into it, by name; of None they are NaN.

    Args:
        model: The model.
        texts: Batches of tokens [text, pos], padded on the right, where they are not padding, and which count.
        put: What is put in.
    """
    sums = {name: torch.zeros(2, dtype=torch.float64) for name in ("model", *put)}
    count = 0
    for tokens, real, where in texts:
        asked = where[:, :-1] & real[:, 1:]
        true = tokens[:, 1:][asked]
        count += len(true)

        def said(tokens: Tensor = tokens, asked: Tensor = asked) -> Tensor:
            return run(model, tokens.to(device_of(model)))[:, :-1].cpu()[asked].float().log_softmax(-1)

        clean = said()
        for name, total in sums.items():
            log_q = clean
            if name != "model":
                edits = put[name]
                if edits is None:
                    total += torch.nan
                    continue
                with edited(model, dict(edits(where))):
                    log_q = said()
            kl = (clean.exp() * (clean - log_q)).sum()
            total += torch.stack([F.nll_loss(log_q, true, reduction="sum"), kl]).double()
    return {name: Loss(*(total / max(count, 1)).tolist()) for name, total in sums.items()}
