"""One feature: what is known of it, looked up when it is asked for."""

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pandas as pd
import torch
from torch import Tensor

from workbench.activations import ActivationStore
from workbench.dictionaries import Dictionary
from workbench.features.effects import Effect, without
from workbench.models import TransformerBridge

if TYPE_CHECKING:
    from workbench.features.featureset import FeatureSet

BEFORE, AFTER = 24, 7
"""Tokens kept on either side of an example's own."""

DENSE = 0.1
"""A feature active on more of the rows than this counts as dense."""

GROUPS = 5
"""Groups of examples by strength."""


@dataclass(frozen=True)
class Example:
    """One place at which a feature is active."""

    value: float
    """The code there, in the unit of the activations."""

    words: list[str]
    """The text around it."""

    acts: list[float]
    """The code at each of ``words``."""

    at: int
    """Which of ``words`` it is about."""

    doc: int
    pos: int


@dataclass(frozen=True)
class Group:
    """Examples of like strength, drawn at random."""

    title: str
    low: float
    high: float
    share: float
    """Of all activations of the feature, how many are as strong."""

    examples: list[Example]


@dataclass(frozen=True)
class Match:
    """Labels that a feature stands for: chosen on one half of the rows, scored on the other."""

    kind: str
    """"value", "union" of values of one label, or "both" of two."""

    name: str
    precision: float
    """Where the feature is active, how often the label holds."""

    recall: float
    """Where the label holds, how often the feature is active."""

    f1: float
    mcc: float
    """Matthews correlation."""


class Feature:
    """One feature; what is asked of it is looked up then."""

    def __init__(self, features: "FeatureSet", number: int) -> None:
        self.features = features
        self.number = number

    def _of(self, name: str) -> Tensor:
        if name not in self.features.columns:
            raise ValueError(
                "These features were described without a model, or write where this is not to be had; call describe "
                "with a model, and for logits with a dictionary that writes to the residual stream."
            )
        return self.features.of(name, self.number)

    @property
    def count(self) -> int:
        """On how many rows it is active."""
        return int(self._of("count"))

    @property
    def density(self) -> float:
        """On which share of the rows."""
        return self.count / self.features.rows

    @property
    def mean(self) -> float:
        """How strongly on average, where it is active."""
        return float(self._of("mean"))

    @property
    def max(self) -> float:
        """How strongly at most."""
        return float(self._of("max"))

    @property
    def dead(self) -> bool:
        """Whether it was never active."""
        return self.count == 0

    @property
    def dense(self) -> bool:
        """Whether it is active on more than a tenth of the rows."""
        return self.density > DENSE

    @property
    def quantiles(self) -> pd.Series:
        """Quantiles of its activations, in steps of 5 %."""
        values = self._of("quantiles")
        return pd.Series(values.tolist(), index=torch.linspace(0, 1, len(values)).tolist(), name="value")

    @property
    def histogram(self) -> pd.Series:
        """Shares of its activations in equal steps from 0 to the strongest, by the upper end of each."""
        shares = self._of("histogram")
        return pd.Series(shares.tolist(), index=(torch.arange(1, len(shares) + 1) / len(shares) * self.max).tolist())

    @property
    def tokens(self) -> pd.DataFrame:
        """The tokens it is active on most often: ``share`` of its activations, and how often it is active on each."""
        tokens, counts, rows = (self._of(name) for name in ("tokens", "token_counts", "token_rows"))
        real = (counts > 0).nonzero()[:, 0]
        return pd.DataFrame(
            {
                "token": [self.features.words[int(tokens[i])] for i in real],
                "share": (counts[real] / max(self.count, 1)).tolist(),
                "of_token": (counts[real] / rows[real].clamp_min(1)).tolist(),
            }
        )

    @property
    def places(self) -> pd.DataFrame:
        """How often it is active by position, in steps of powers of two."""
        counts = self._of("places").tolist()
        rows = self.features.places
        spans = [(2**i - 1, 2 ** (i + 1) - 2) for i in range(len(counts))]
        return pd.DataFrame(
            [
                {"from": low, "to": high, "share": n / max(self.count, 1), "of_place": n / total}
                for (low, high), n, total in zip(spans, counts, rows, strict=True)
                if total
            ]
        )

    @property
    def matches(self) -> list[Match]:
        """The labels it stands for, best first; none where the store has no labels."""
        found = []
        for kind, column, joint in (("value", "label", ""), ("union", "union", " or "), ("both", "pair", " and ")):
            if column in self.features.columns:
                values = [int(value) for value in self._of(column) if value >= 0]
                name = joint.join(self.features.value_name(value) for value in values)
                scores = {key: float(self._of(f"{column}_{key}")) for key in ("precision", "recall", "f1", "mcc")}
                if len(values) > 1 or kind == "value":
                    found.append(Match(kind, name, **scores))
        return sorted(found, key=lambda match: -match.f1)

    @property
    def near(self) -> pd.DataFrame:
        """Features of like direction: ``feature`` and ``cosine``."""
        return self._others("near", "near_cosines", "cosine")

    @property
    def company(self) -> pd.DataFrame:
        """Features active where it is: ``feature`` and the correlation ``phi`` of being active, from a sample."""
        return self._others("with", "phi", "phi")

    @property
    def alike(self) -> pd.DataFrame:
        """Features whose activations correlate with its own: ``feature`` and ``pearson``, from a sample."""
        return self._others("like", "pearson", "pearson")

    def _others(self, which: str, by: str, name: str) -> pd.DataFrame:
        others, scores = self._of(which), self._of(by)
        real = scores != 0
        return pd.DataFrame({"feature": others[real].tolist(), name: scores[real].tolist()})

    @property
    def logits(self) -> pd.DataFrame:
        """The tokens whose logits it raises and lowers most by itself, for a code of one; described with a model."""
        tokens = torch.cat([self._of("raised"), self._of("lowered").flip(0)])
        by = torch.cat([self._of("raised_by"), self._of("lowered_by").flip(0)])
        return pd.DataFrame({"token": [self.features.words[int(i)] for i in tokens], "by": by.tolist()})

    @property
    def loss_effect(self) -> float:
        """How much the loss rises without it, in nats for each token where it is active, to first order."""
        return float(self._of("loss_effect"))

    @property
    def top(self) -> list[Example]:
        """Where it is most strongly active, strongest first."""
        kept = int(self._of("examples"))
        order = self._of("value")[: self._tops].argsort(descending=True)[:kept]
        return self._examples(order)

    @property
    def sample(self) -> list[Example]:
        """Where it is active, drawn at random from all such places."""
        drawn = int(self._of("samples"))
        values = self._of("value")[self._tops :]
        return self._examples(self._tops + values.argsort(descending=True)[:drawn])

    @property
    def _tops(self) -> int:
        return int(self.features.provenance["tops"])

    def _examples(self, chosen: Tensor) -> list[Example]:
        tokens, acts, value, doc, pos = (
            self._of(name)[chosen] for name in ("example_tokens", "example_acts", "value", "example_doc", "example_pos")
        )
        found = []
        for i in range(len(chosen)):
            real = tokens[i] >= 0
            words = [self.features.words[token] for token in tokens[i][real].tolist()]
            at = int(real[:BEFORE].sum())
            found.append(Example(float(value[i]), words, acts[i][real].tolist(), at, int(doc[i]), int(pos[i])))
        return found

    def groups(self, by: Literal["quantile", "interval"] = "quantile", n: int = GROUPS, each: int = 4) -> list[Group]:
        """Return examples by strength, strongest group first, drawn at random within each.

        Args:
            by: "quantile": groups hold equally many of its activations. "interval": equal steps from 0 to the
                strongest, which in a heavy tail leaves nearly all to the lowest.
            n: How many groups.
            each: At most so many examples in each.
        """
        if by not in ("quantile", "interval"):
            raise ValueError(f'by must be "quantile" or "interval", got {by!r}.')
        if not 0 < n <= 20 or each < 1:
            raise ValueError(f"Groups are 1 to 20, of at least one example each; got n={n} and each={each}.")
        if self.dead:
            return []
        quantiles = self._of("quantiles").double()
        marks = torch.linspace(0, 1, len(quantiles), dtype=torch.double)
        steps = torch.linspace(0, 1, n + 1, dtype=torch.double)
        edges = _between(steps, marks, quantiles) if by == "quantile" else steps * self.max
        sample = self.sample
        groups = []
        for i in reversed(range(n)):
            low, high = float(edges[i]), float(edges[i + 1])
            inside = [one for one in sample if (low < one.value or i == 0) and (one.value <= high or i == n - 1)]
            if by == "quantile":
                title = f"{100 * i / n:.0f} to {100 * (i + 1) / n:.0f} % of its activations"
                share = 1 / n
            else:
                title = f"activations of {low:.3g} to {high:.3g}"
                share = float(_between(edges[i : i + 2], quantiles, marks).diff())
            groups.append(Group(title, low, high, share, inside[:each]))
        return groups

    def effect(self, model: TransformerBridge, *, n: int = 8) -> Effect:
        """Return what leaving it out does on the texts of ``n`` of its sampled examples, computed exactly.

        The error of the dictionary stays, so that nothing changes but the feature. Of few texts it is a rough figure:
        another ``n`` or other texts give another. At most those examples are taken that ``sample`` holds.
        """
        if n < 1 or not self.sample:
            raise ValueError(
                f"Feature {self.number} has {len(self.sample)} examples, of which 1 or more are taken; got n={n}. Of a "
                "feature that is active nowhere there is no effect to measure."
            )
        dictionary, store = self.features.sources
        if not isinstance(dictionary, Dictionary):
            raise TypeError(f"Only a workbench Dictionary can be spliced in, got {type(dictionary).__name__}.")
        dictionary.check(model)
        bos = None if model.tokenizer is None else model.tokenizer.bos_token_id
        parts = dict(_text(store, one.doc, one.pos, bos) for one in self.sample[:n])  # a text counts once
        return without(model, dictionary, self.number, list(parts.values()), self.features.words)

    def __repr__(self) -> str:
        if self.dead:
            return f"Feature {self.number}: dead"
        best = f"; {match.name}, F1 {match.f1:.2f}" if (match := next(iter(self.matches), None)) else ""
        return f"Feature {self.number}: active on {self.density:.2%} of the rows, most on {self._words()}{best}"

    def _words(self) -> str:
        return ", ".join(repr(token.strip()) for token in self.tokens["token"][:3])

    def _repr_html_(self) -> str:
        lines = "".join(
            "<div>"
            # Words without spaces of their own stand apart.
            + ("" if any(word[:1].isspace() for word in one.words) else " ").join(
                f"<span style='background:rgba(230,159,0,{min(1.0, act / max(self.max, 1e-9)):.2f})'>"
                f"{html.escape(word)}</span>"
                for word, act in zip(one.words, one.acts, strict=True)
            )
            + "</div>"
            for one in self.top[:5]
        )
        return f"<div><b>{html.escape(repr(self))}</b>{lines}</div>"


def _between(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """Interpolate the nondecreasing ``ys`` over ``xs`` at ``x``."""
    upper = torch.searchsorted(xs.contiguous(), x.contiguous()).clamp(1, len(xs) - 1)
    low, high = xs[upper - 1], xs[upper]
    share = ((x - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return ys[upper - 1] + share * (ys[upper] - ys[upper - 1])


def _text(store: ActivationStore, doc: int, pos: int, bos: int | None) -> tuple[tuple[int, int], Tensor]:
    """Return which text of a store has a row at ``pos`` of ``doc``, by document and number in it, and its tokens."""
    low, high = 0, len(store)
    while low < high:  # documents are in order
        middle = (low + high) // 2
        low, high = (middle + 1, high) if int(store.rows(middle, ()).doc) < doc else (low, middle)
    rows = store.rows(slice(low, low + (1 << 16)), ())
    end = int((rows.doc == doc).sum())
    rows = store.rows(slice(low, low + end), ())
    parts = rows.texts(bos)
    at = int(((rows.pos == pos).nonzero()[:, 0] if end else torch.zeros(1))[0])
    number = int(torch.searchsorted(rows.begins, at, right=True)) - 1
    return (doc, number), parts[number]
