"""Which features answer to a prompt, a label, a text in their examples, or a direction."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from workbench.dictionaries.inputs import pick
from workbench.features.effects import loss_gradients, removal
from workbench.features.encoding import encoded
from workbench.models import Site, TransformerBridge, fingerprint, record, tokenize

if TYPE_CHECKING:
    from workbench.features.featureset import FeatureSet

By = Literal["activation", "quantile", "loss"]


class Searches:
    """The searches of a ``FeatureSet``."""

    def search(
        self: "FeatureSet",  # type: ignore[misc]
        prompt: str | None = None,
        *,
        label: str | None = None,
        text: str | None = None,
        direction: Float[Tensor, " d"] | None = None,
        model: TransformerBridge | None = None,
        by: By = "activation",
        n: int = 10,
    ) -> pd.DataFrame:
        """Return the ``n`` features that answer best to one of four questions, with their scores, best first.

        Args:
            prompt: Which are active on this text? It is run through ``model``; its beginning token is left out.
            label: Which stand for this value, "topic=sea" or "sea", or for any value of this label, "topic"?
            text: Which have this text among their strongest examples?
            direction: Whose directions are most like this one, by cosine?
            model: The model, for a prompt.
            by: How features on a prompt are ranked: by their strongest "activation"; by its "quantile" among all of
                their own, which brings up the rare and the weak; or by how much of the "loss" of the text they save, to
                first order.
            n: How many.
        """
        asked = {"prompt": prompt, "label": label, "text": text, "direction": direction}
        given = [name for name, value in asked.items() if value is not None]
        if len(given) != 1:
            raise ValueError(f"A search is for one of {', '.join(asked)}; got {', '.join(given) or 'none'}.")
        if isinstance(value := asked[given[0]], str) and not value.strip():
            raise ValueError(f"The search is empty; say which {given[0]} to look for.")
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}.")
        if direction is not None:
            return _by_direction(self, direction, n)
        if label is not None:
            return _by_label(self, label, n)
        if text is not None:
            return _by_text(self, text, n)
        assert prompt is not None
        if model is None or self.dictionary is None:
            what = "model=" if model is None else "a dictionary, as in load_features(…, dictionary=…)"
            raise ValueError(f"A prompt is run through the model and the dictionary; give {what}.")
        if by not in ("activation", "quantile", "loss"):
            raise ValueError(f'by must be "activation", "quantile" or "loss", got {by!r}.')
        return _by_prompt(self, model, prompt, by, n)


def _found(features: "FeatureSet", chosen: Tensor, **columns: Any) -> pd.DataFrame:
    """Return the chosen features with scores, and what each stands for."""
    table = pd.DataFrame({"feature": chosen.tolist(), **columns})
    shown = [name for name in ("label", "token") if name in features.table]
    return table.join(features.table[shown[:1]].set_axis(["about"], axis=1), on="feature")


def _by_prompt(features: "FeatureSet", model: TransformerBridge, prompt: str, by: By, n: int) -> pd.DataFrame:
    if features.provenance["model"] != (this := fingerprint(model)):
        raise ValueError(
            f"These features are of another model, with fingerprint {features.provenance['model']}, not {this}; load "
            "that one."
        )
    tokens = tokenize(model, prompt)
    sites = features.sites_in
    acts = record(model, tokens, sites)
    bos = model.tokenizer.bos_token_id
    first = int(tokens[0, 0] == bos)
    if first == tokens.shape[1]:
        raise ValueError("The search holds no token but the beginning of the text; type a word.")
    x = pick({site: one[0].flatten(1)[first:].cpu() for site, one in acts.items()}, sites)
    if by == "loss":
        (site,) = map(Site.parse, features.provenance["sites_out"])
        gradient = loss_gradients(model, [tokens[0].cpu()], site)[0][first:]
        effects, codes = removal(features.dictionary, x, gradient)
    else:
        codes = encoded(features.dictionary, x)
        effects = codes.values
    active = codes.values > 0
    row = active.nonzero()[:, 0]
    which, values, effects = codes.indices[active], codes.values[active], effects[active]
    if by == "quantile":
        marks = features.column("quantiles")[which].contiguous()
        effects = (torch.searchsorted(marks, values[:, None])[:, 0] / (marks.shape[1] - 1)).clamp_max(1)
    score = torch.full((len(features),), -torch.inf)
    score = score.scatter_reduce(0, which, effects, "sum" if by == "loss" else "amax", include_self=by != "loss")
    answering = int(torch.isfinite(score).sum())
    best = score.topk(min(n, answering))
    at = [int(row[which == i][values[which == i].argmax()]) for i in best.indices]
    name = {"activation": "activation", "quantile": "quantile", "loss": "loss saved"}[by]
    words = [features.words[int(tokens[0, first + i])] for i in at]
    return _found(features, best.indices, **{name: best.values.tolist(), "on": words})


def _by_direction(features: "FeatureSet", direction: Tensor, n: int) -> pd.DataFrame:
    if features.dictionary is None:
        raise ValueError("Directions are the dictionary's; give load_features(…, dictionary=…).")
    W_dec = features.dictionary.W_dec.detach().flatten(1)
    direction = torch.as_tensor(direction)
    if direction.shape != W_dec.shape[1:] or not direction.any() or not direction.isfinite().all():
        raise ValueError(
            f"A direction has {W_dec.shape[1]} numbers, not all zero and all finite; got shape "
            f"{tuple(direction.shape)}{'' if direction.isfinite().all() else ', not all finite'}."
        )
    best = F.cosine_similarity(W_dec, direction.to(W_dec)[None]).topk(min(n, len(W_dec)))
    return _found(features, best.indices, cosine=best.values.tolist())


def _by_label(features: "FeatureSet", label: str, n: int) -> pd.DataFrame:
    if "label" not in features.columns:
        raise ValueError("The store that these features were described on carries no labels.")
    names = [features.value_name(i) for i in range(sum(map(len, features.labels.values())))]
    wanted = [i for i, name in enumerate(names) if label in (name, *name.split("=", 1))]
    if not wanted:
        import difflib

        known = [*features.labels, *names, *(name.split("=", 1)[1] for name in names)]
        near = difflib.get_close_matches(label, [name for name in known if name[-1:] not in ("", "=")], cutoff=0.0)
        raise ValueError(f"No label or value is called {label!r}; the nearest are {', '.join(map(repr, near))}.")
    held = torch.isin(features.column("label")[:, 0], torch.tensor(wanted))
    f1 = torch.where(held, features.column("label_f1"), -1)
    best = f1.topk(min(n, int(held.sum())))
    return _found(features, best.indices, f1=best.values.tolist())


def _by_text(features: "FeatureSet", text: str, n: int) -> pd.DataFrame:
    wanted = text.casefold()
    tops = int(features.provenance["tops"])
    # Where no token has a space of its own, words stand apart and marks do not.
    apart = not any(word[:1].isspace() for word in features.words)
    times = []
    for part in features.column("example_tokens")[:, :tops].split(1024):
        for examples in part.tolist():
            texts = ([features.words[token] for token in one if token >= 0] for one in examples)
            times.append(sum(wanted in (_apart(one) if apart else "".join(one)).casefold() for one in texts))
    best = torch.tensor(times).topk(min(n, sum(time > 0 for time in times)))
    return _found(features, best.indices, examples=best.values.tolist())


def _apart(words: Sequence[str]) -> str:
    """Return words as running text."""
    return re.sub(r" (?=[.,;:!?])", "", " ".join(words))
