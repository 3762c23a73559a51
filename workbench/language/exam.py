"""How well a model knows the language: its predictions beside the exact ones."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.language.documents import WORDS, Documents
from workbench.language.language import Language
from workbench.language.lexicon import MANNERS, TRADES
from workbench.language.vocabulary import VOCABULARY

Predict = Callable[[Int[Tensor, "batch pos"]], Float[Tensor, "batch pos d_vocab"]]
"""Tokens → logits: any causal language model over the language's vocabulary."""


@dataclass(frozen=True)
class Exam:
    """What an examination found on its documents."""

    kl: float
    """Mean KL(oracle ‖ model) in nats per token."""

    kl_error: float
    """Standard error of ``kl``, over documents."""

    entropy: float
    """Mean entropy of the oracle in nats per token: what remains to be guessed by anyone."""

    grammatical_mass: float
    """Mean probability the model gives to tokens that the language allows."""

    families: pd.DataFrame
    """Per family: ``tokens``, ``kl`` and its standard error ``kl_error``, ``grammatical_mass``."""

    slots: pd.DataFrame
    """Per family and slot, apart where the oracle is ``certain`` and where it is not: ``count``, the model's
    ``accuracy`` beside what the oracle's best guess expects of itself over the whole language (``expected``), and
    the ``mass`` that the model gives to what is allowed. Where several words may come, documents of one split can
    lie to either side of it.

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
    asked = table[table["slot"] != ""]
    by_family = table.groupby("family", observed=True)
    families = by_family.agg(tokens=("kl", "size"), kl=("kl", "mean"), grammatical_mass=("mass", "mean"))
    families.insert(2, "kl_error", [_error(rows) for _, rows in by_family])
    kl, entropy, mass = (float(table[name].to_numpy().mean()) for name in ("kl", "entropy", "mass"))
    return Exam(
        kl=kl,
        kl_error=_error(table),
        entropy=entropy,
        grammatical_mass=mass,
        families=families.reset_index(),
        slots=asked.groupby(["family", "slot", "certain"], observed=True)
        .agg(count=("right", "size"), accuracy=("right", "mean"), expected=("likeliest", "mean"), mass=("mass", "mean"))
        .reset_index(),
    )


def peculiarities(predict: Predict, language: Language, *, n: int = 400, seed: int = 0) -> pd.DataFrame:
    """Return how much of each planted peculiarity ``predict`` shows, beside how much there is.

    The questions: where a template is written wrong, how probable is what is written; where both trades of a workplace
    share the tool, how probable is the one that the stereotype gives to this gender; how probable is a rude epithet
    from a rude speaker, and from a polite one. Each is a mean probability over test documents.

    Args:
        predict: The model.
        language: Whose peculiarities.
        n: Documents of each family that are looked at.
        seed: Of these documents.

    Returns:
        ``what``, ``count``, ``model``, ``exact``.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    trades = {trade.name: trade for pair in TRADES.values() for trade in pair}
    rivals = {a: b for x, y in TRADES.values() for a, b in ((x.name, y.name), (y.name, x.name))}
    for family in ("facts", "professions", "speakers"):
        documents = language.documents(n, split="test", seed=seed, families=[family])
        with torch.no_grad():
            model = predict(documents.tokens).double().softmax(-1).cpu()
        values = {name: column.values() for name, column in documents.labels.items()}
        for i, at in documents.labels["slot"].codes.nonzero().tolist():
            label = {name: rows[i][at] for name, rows in values.items()}
            wanted: set[str] = set()
            match family:
                case "facts":
                    written = WORDS[int(documents.tokens[i, at])]
                    what, wanted = "a wrong template says what it always says", {written}
                    if written == label["truth"]:
                        continue
                case "professions":
                    if "shared tool" not in values["role"][i][:at][-5:]:
                        continue
                    what = "the stereotype decides between two trades"
                    pair = (label["profession"], rivals[label["profession"]])
                    wanted = {name for name in pair if trades[name].gender == label["gender"]}
                case _:
                    what = f"a {label['speaker']} speaker is rude"
                    wanted = set(MANNERS["rude"][0])
            tokens = [VOCABULARY[word] for word in wanted]
            exact = language.next_token(documents.tokens[i, :at])[-1]
            found.setdefault(what, []).append((float(model[i, at - 1, tokens].sum()), float(exact[tokens].sum())))
    means = {what: np.mean(pairs, axis=0).tolist() for what, pairs in found.items()}
    rows = [
        {"what": what, "count": len(found[what]), "model": model, "exact": exact}
        for what, (model, exact) in means.items()
    ]
    return pd.DataFrame(rows)


def _error(rows: pd.DataFrame) -> float:
    """Return the standard error of the mean KL, over documents, since tokens of one document are not independent."""
    kl = rows["kl"].to_numpy()
    excess = np.bincount(rows["document"].to_numpy(), weights=kl - kl.mean())
    return float(np.sqrt((excess**2).sum()) / len(kl))


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
            "likeliest": exact.max(-1).values.numpy(),
            "right": (model.argmax(-1) == ids[1:]).numpy(),
        }
    )
