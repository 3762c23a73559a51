"""How well a model knows the language: its predictions beside the exact ones, on documents it never saw."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.language.documents import Documents
from workbench.language.language import Language

Predict = Callable[[Int[Tensor, "batch pos"]], Float[Tensor, "batch pos d_vocab"]]
"""Tokens → logits: any causal language model over the language's vocabulary."""


@dataclass(frozen=True)
class Exam:
    """What an examination found; every figure is over held-out documents."""

    kl: float
    """Mean KL(oracle ‖ model) in nats per token."""

    kl_error: float
    """Standard error of ``kl``, over documents."""

    entropy: float
    """Mean entropy of the oracle in nats per token: what remains to be guessed by anyone."""

    grammatical_mass: float
    """Mean probability the model gives to tokens that the language allows."""

    families: pd.DataFrame
    """Per family: ``tokens``, ``kl``, ``grammatical_mass``."""

    slots: pd.DataFrame
    """Per family and slot where the oracle is certain: ``count`` and the model's ``accuracy``.

    Facts that are written wrong on purpose are listed as a slot of their own."""


def examine(predict: Predict, language: Language, documents: Documents, *, batch: int = 64) -> Exam:
    """Compare ``predict`` with the exact next-token distribution (split ``"all"``) on ``documents``.

    Args:
        predict: The model.
        language: Whose oracle.
        documents: Usually of the test split and of a seed chosen now.
        batch: Documents in one call of ``predict``.
    """
    rows = []
    for first in range(0, len(documents), batch):
        part = documents[first : first + batch]
        with torch.no_grad():
            logits = predict(part.tokens).double().cpu()
        for i in range(len(part)):
            rows.append(_document(language, part[i], logits[i]))
    table = pd.concat([row.assign(document=i) for i, row in enumerate(rows)], ignore_index=True)
    certain = table[table["certain"] & (table["slot"] != "")]
    kl, entropy, mass = (table[name].to_numpy() for name in ("kl", "entropy", "mass"))
    # Tokens of one document are not independent, so the error of the mean is taken over documents.
    excess = np.bincount(table["document"].to_numpy(), weights=kl - kl.mean())
    by_family = table.groupby("family", observed=True)
    return Exam(
        kl=float(kl.mean()),
        kl_error=float(np.sqrt((excess**2).sum()) / len(kl)),
        entropy=float(entropy.mean()),
        grammatical_mass=float(mass.mean()),
        families=by_family.agg(
            tokens=("kl", "size"), kl=("kl", "mean"), grammatical_mass=("mass", "mean")
        ).reset_index(),
        slots=certain.groupby(["family", "slot"], observed=True)
        .agg(count=("right", "size"), accuracy=("right", "mean"))
        .reset_index(),
    )


def _document(language: Language, document: Documents, logits: Tensor) -> pd.DataFrame:
    """Return one row for each predicted token of one document."""
    length = int(document.lengths[0])
    ids = document.tokens[0, :length]
    exact = language.next_token(ids)[:-1]
    model = logits[: length - 1].log_softmax(-1)
    cross = torch.where(exact > 0, exact * model, 0.0).sum(-1)
    entropy = -torch.special.xlogy(exact, exact).sum(-1)
    slot = document.labels["slot"]
    slots = [slot.names[c] for c in slot.codes[0, 1:length].tolist()]
    truth, following = document.labels["truth"], ids[1:].tolist()
    for t, token in enumerate(following):
        code = int(truth.codes[0, t + 1])
        if code and language.vocabulary[truth.names[code]] != token:
            slots[t] = "answer, written wrong"
    family = document.labels["family"]
    return pd.DataFrame(
        {
            "family": family.names[int(family.codes[0, 1])],
            "slot": slots,
            "kl": (-cross - entropy).numpy(),
            "entropy": entropy.numpy(),
            "mass": torch.where(exact > 0, model.exp(), 0.0).sum(-1).numpy(),
            "certain": (exact.max(-1).values > 1 - 1e-9).numpy(),
            "right": (model.argmax(-1) == ids[1:]).numpy(),
        }
    )
