"""Is a dictionary any good? Everything that is asked of one, each number beside what is had for nothing.

A metric has a name and a version, since numbers of one name have meant different things; a null, which is what is
scored without a dictionary or by one that knows nothing; and an interval over draws, each with texts and seeds of its
own. What learns from labels learns from one part of the texts and is judged on another.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workbench.activations import ActivationStore
from workbench.dictionaries import Codes, Dictionary, Random, fidelity, spliced
from workbench.dictionaries.fidelity import only
from workbench.dictionaries.inputs import named
from workbench.evaluation.absorption import absorption, standing_for
from workbench.evaluation.description import LEFT, description_length, gaussian_bits
from workbench.evaluation.draws import FEWEST, Part, controls_for, parts_of
from workbench.evaluation.intervals import Interval, mean_of
from workbench.evaluation.losses import Put, losses
from workbench.evaluation.metrics import METRICS, Metric
from workbench.evaluation.probing import sparse_probe
from workbench.features.feature import DENSE
from workbench.features.neighbours import nearest
from workbench.models import Edit, Site, TransformerBridge

KS = (1, 2, 5)
"""Numbers of units that a probe reads."""

Where = tuple[Tensor, Tensor]
"""Where a label holds, [row], in the part that is learnt from and in the one that is judged."""

Named = Mapping[str, Dictionary | Sequence[Dictionary]]


@dataclass(frozen=True)
class Measurement(Interval):
    """The mean of a metric over the draws, with its 95 % interval."""

    null: float
    """What is scored for nothing, in the same draws: see the metric's ``null``."""

    best: float
    """The best there can be; NaN where nobody knows."""


@dataclass(frozen=True)
class Scorecard:
    """What was measured of some dictionaries of one site, and of the controls beside them."""

    scores: dict[str, dict[str, Measurement]]
    """By the name of the dictionary, then of the metric; what could not be measured is missing."""

    probes: pd.DataFrame
    """One line per ``label``, ``value``, ``dictionary`` and ``k``: held-out ``f1`` of the best k features with its
    interval, that of ``shuffled`` labels, and the Bayes ``ceiling`` where it is known."""

    absorbed: pd.DataFrame
    """One line per ``dictionary``, ``parent`` and ``child``: the share of the child's rows on which no feature of the
    parent is active, ``missed``, and on which another then carries the parent's direction, ``rate``."""

    provenance: dict[str, object] = field(default_factory=dict)
    """Site, model, rows of a part, draws and seed."""

    def to_frame(self) -> pd.DataFrame:
        """Return one line per metric and dictionary."""
        lines = [
            {"metric": METRICS[metric].id, "dictionary": name, "value": found.value, "low": found.low}
            | {"high": found.high, "null": found.null, "best": found.best}
            for metric in METRICS
            for name, scores in self.scores.items()
            if (found := scores.get(metric))
        ]
        return pd.DataFrame(lines)

    def metrics(self) -> list[Metric]:
        """Return what was measured, in the order of the card."""
        return [metric for name, metric in METRICS.items() if any(name in scores for scores in self.scores.values())]

    def __repr__(self) -> str:
        """Return the card as text."""
        width = max(map(len, self.scores))
        lines = [f"{'':22}" + "".join(f"{name:>{width + 2}}" for name in self.scores) + f"{'null':>10}"]
        for metric in self.metrics():
            found = [scores.get(metric.name) for scores in self.scores.values()]
            cells = "".join(f"{'–' if one is None else f'{one.value:.3g}':>{width + 2}}" for one in found)
            way = {"lower": " ↓", "higher": " ↑", "neither": ""}[metric.better]
            lines.append(f"{metric.id + way:22}{cells}{next(one.null for one in found if one):>10.3g}")
        return "\n".join(lines)


def scorecard(
    dictionaries: Dictionary | Named,
    store: ActivationStore,
    model: TransformerBridge | None = None,
    *,
    controls: Named | None = None,
    labels: Sequence[str] | None = None,
    ceilings: pd.DataFrame | None = None,
    hierarchy: tuple[str, str] | None = None,
    draws: int = 5,
    rows: int = 16_384,
    seed: int = 0,
) -> Scorecard:
    """Return the scorecard of one dictionary, or of several of the same site, beside controls.

    The store is cut into parts, one for each draw, of documents from all over it. A draw learns from one part and is
    judged on the next; where several dictionaries of different seeds are given under one name, each draw takes another.

    Args:
        dictionaries: One, or by name; several of different seeds under one name are taken in turn. Each reads one site
            and rebuilds one, and all the same.
        store: Rows of these sites; those of more than one are needed for a transcoder only.
        model: The model that they come from; without it, nothing is spliced in.
        controls: What stands beside them, by name. By default, made anew for each draw from the part that it learns
            from: "frozen decoder", a TopK of as many features, of which as many are active, and only its encoder is
            trained (Korznikov et al. 2026, arXiv 2602.14111); and of an autoencoder "PCA", with as many components
            active, and "neurons", the axes as they are, all of them. ``{}`` is none.
        labels: The columns of labels that are probed; None is all that the store has.
        ceilings: ``language.ceilings`` of these documents: what the best causal model can know of each label.
        hierarchy: Two columns of labels, of parents and of their kinds, for absorption; None is "larger" and "kind",
            which the built-in language has.
        draws: How many, at least 2.
        rows: In a part, at most. Rare features are taken for dead on few.
        seed: Of everything drawn at random.
    """
    given = {"dictionary": dictionaries} if isinstance(dictionaries, Dictionary) else dictionaries
    every = {name: _several(name, one) for name, one in given.items()}
    fixed = {name: _several(name, one) for name, one in (controls or {}).items()}
    first = _checked(every, fixed, store, model)
    columns = list(store.names if labels is None else labels)
    if unknown := [name for name in (*columns, *(hierarchy or ())) if name not in store.names]:
        raise ValueError(f"The store has no labels {unknown[0]!r}; it has {', '.join(store.names) or 'none'}.")
    parts = [Part(part, first, model) for part in parts_of(store, first, draws, rows)]
    card = _Card(columns, hierarchy or ("larger", "kind"), ceilings)
    for draw in range(draws):
        learn, judge = parts[draw], parts[(draw + 1) % draws]
        now = {name: several[draw % len(several)] for name, several in every.items()}
        beside = {name: several[draw % len(several)] for name, several in fixed.items()}
        if controls is None:
            beside = controls_for(next(iter(now.values())), learn, seed + draw)
        card.draw({**now, **beside}, learn, judge, model, seed + draw)
    return card.finished(
        {
            "model": store.fingerprint,
            "sites_in": named(first.sites_in),
            "sites_out": named(first.sites_out),
            "rows": [len(part.y) for part in parts],
            "draws": draws,
            "seed": seed,
        }
    )


class _Card:
    """What the draws have measured so far."""

    def __init__(self, columns: Sequence[str], hierarchy: tuple[str, str], ceilings: pd.DataFrame | None) -> None:
        self.columns, self.hierarchy = columns, hierarchy
        self.ceilings = {} if ceilings is None else ceilings.set_index(["label", "value"])["f1"].to_dict()
        self.scores: list[tuple[str, str, float, float, float]] = []  # dictionary, metric, value, null, best
        self.probes: list[dict[str, object]] = []
        self.absorbed: list[dict[str, object]] = []

    @torch.no_grad()
    def draw(
        self,
        dictionaries: Mapping[str, Dictionary],
        learn: Part,
        judge: Part,
        model: TransformerBridge | None,
        seed: int,
    ) -> None:
        """Measure everything once."""
        bits = gaussian_bits(judge.y, LEFT * float((judge.y - judge.y.mean(0)).square().sum(1).mean()))
        nulls: dict[tuple[int, int], dict[str, float]] = {}
        for name, dictionary in dictionaries.items():
            codes = _encoded(dictionary, learn), _encoded(dictionary, judge)
            found = fidelity(dictionary, judge.acts)
            own = self._shape(name, dictionary, codes, learn, judge)
            size = dictionary.n_features, min(max(1, round(found.l0)), *dictionary.W_dec.shape)
            if size not in nulls:
                random = Random(judge.y.shape[1], size[0], k=size[1], seed=seed)
                random.initialise(learn.y)
                drawn = tuple(random.encode(part.y) for part in (learn, judge))
                nulls[size] = self._shape("", random, drawn, learn, judge)
            self._add(name, "fvu", found.fvu, 1.0)
            self._add(name, "l0", found.l0, float(judge.y.shape[1]))
            for metric, value in own.items():
                self._add(name, metric, value, nulls[size].get(metric, float("nan")))
            self._add(name, "mdl", description_length(dictionary, judge.x, judge.y, codes[1]), bits)
            self._probe(name, codes, learn, judge, seed)
        if model is not None:
            self._splice(dictionaries, learn, judge, model)

    def finished(self, provenance: dict[str, object]) -> Scorecard:
        """Return the card."""
        table = pd.DataFrame(self.scores, columns=["dictionary", "metric", "value", "null", "best"])
        scores: dict[str, dict[str, Measurement]] = {name: {} for name in table["dictionary"].unique()}
        for (name, metric), lines in _groups(table, ["dictionary", "metric"]):
            found = mean_of(lines["value"].tolist())
            rest = lines["null"].mean(), lines["best"].mean()
            scores[name][metric] = Measurement(found.value, found.low, found.high, *map(float, rest))
        keys = ["label", "value", "dictionary", "k"]
        probes = [
            dict(zip(keys, key, strict=True))
            | {"f1": (f1 := mean_of(lines["f1"].tolist())).value, "low": f1.low, "high": f1.high}
            | lines[["shuffled", "ceiling"]].mean().to_dict()
            for key, lines in _groups(self.probes, keys)
        ]
        keys = ["dictionary", "parent", "child"]
        absorbed = [
            dict(zip(keys, key, strict=True)) | lines[["missed", "rate"]].mean().to_dict()
            for key, lines in _groups(self.absorbed, keys)
        ]
        return Scorecard(scores, pd.DataFrame(probes), pd.DataFrame(absorbed), provenance)

    def _add(self, name: str, metric: str, value: float, null: float, best: float | None = None) -> None:
        self.scores.append((name, metric, value, null, METRICS[metric].best if best is None else best))

    def _shape(
        self, name: str, dictionary: Dictionary, codes: tuple[Codes, ...], learn: Part, judge: Part
    ) -> dict[str, float]:
        """Return what can be said of any features, and so of random ones too, for comparison."""
        active = torch.bincount(codes[1].indices[codes[1].values != 0], minlength=dictionary.n_features) / len(judge.y)
        W_dec = dictionary.W_dec.detach()
        found = {"dead": float((active == 0).float().mean()), "dense": float((active >= DENSE).float().mean())}
        if dictionary.n_features > 1:
            found["cosine"] = float(nearest(W_dec)["near_cosines"][:, 0].mean())
        sizes = [len(standing_for(codes[0], label)) for _, _, label, _ in self._asked(learn, judge, self.columns)]
        if sizes := [size for size in sizes if size]:
            found["splitting"] = float(np.mean(sizes))
        rates = []
        for parent, label, kinds in self._families(learn, judge):
            features = standing_for(codes[0], label[0], kinds=[kind for kind, _ in kinds.values()])
            if not len(features):
                continue
            judged = [kind for _, kind in kinds.values()]
            for child, one in zip(kinds, absorption(codes[1], judge.y, W_dec, label[1], judged, features), strict=True):
                rates.append(one.rate)
                if name:
                    line = {"dictionary": name, "parent": parent, "child": child}
                    self.absorbed.append({**line, "missed": one.missed, "rate": one.rate})
        if rates:
            found["absorption"] = float(np.mean(rates))
        return found

    def _asked(self, learn: Part, judge: Part, columns: Sequence[str]) -> list[tuple[str, str, Tensor, Tensor]]:
        """Return the labels that have rows enough in both parts, as column, value, and where they hold in each."""
        found = []
        for column in columns:
            for code, value in enumerate(learn.names[column]):
                where = learn.labels[column] == code, judge.labels[column] == code
                if code and all(FEWEST <= int(w.sum()) <= len(w) - FEWEST for w in where):
                    found.append((column, value, *where))
        return found

    def _families(self, learn: Part, judge: Part) -> list[tuple[str, Where, dict[str, Where]]]:
        """Return the parents that are asked for, where they hold in each part, and the same of their kinds."""
        above, below = self.hierarchy
        if not {above, below} <= judge.names.keys():
            return []
        both = self._asked(learn, judge, (above, below))
        found = []
        for column, parent, learnt, judged in both:
            if column != above:
                continue
            kinds = {
                child: (learn_here, here)
                for column, child, learn_here, here in both
                if column == below and bool((here & judged).any()) and not bool((here & ~judged).any())
            }
            if len(kinds) > 1:
                found.append((parent, (learnt, judged), kinds))
        return found

    def _probe(self, name: str, codes: tuple[Codes, ...], learn: Part, judge: Part, seed: int) -> None:
        """Tell every label from few features."""
        asked = self._asked(learn, judge, self.columns)
        if not asked:
            return
        n_features = codes[0].n_features
        values, indices = (torch.cat([getattr(one, what) for one in codes]) for what in ("values", "indices"))
        both = Codes(values, indices, n_features)
        x = both.dense() if 4 * values.shape[1] >= n_features else both
        held_out = torch.arange(len(values)) >= len(learn.y)
        ks = [k for k in KS if k <= n_features]
        found: dict[int, list[tuple[float, float, float]]] = {k: [] for k in ks}
        for column, value, *where in asked:
            probe = sparse_probe(x, torch.cat(where), ks=ks, held_out=held_out, seed=seed)
            ceiling = self.ceilings.get((column, value), float("nan"))
            for k, one in probe.by_k.items():
                found[k].append((one.scores.f1, one.shuffled.f1, ceiling))
                line = {"label": column, "value": value, "dictionary": name, "k": k, "f1": one.scores.f1}
                self.probes.append(line | {"shuffled": one.shuffled.f1, "ceiling": ceiling})
        for k, rates in found.items():
            self._add(name, f"probe_{k}", *map(float, np.mean(rates, 0)))

    def _splice(
        self, dictionaries: Mapping[str, Dictionary], learn: Part, judge: Part, model: TransformerBridge
    ) -> None:
        """Put each dictionary in the place of what it rebuilds."""
        (write,) = next(iter(dictionaries.values())).sites_out
        mean = learn.y.mean(0)
        put: dict[str, Put | None] = {
            f"of {name}": lambda where, one=one: _at(where, spliced(one, error="drop"))
            for name, one in dictionaries.items()
        }
        put["mean"] = lambda where: _at(
            where, {write: lambda acts, _: mean.to(acts).view(acts.shape[2:]).expand_as(acts)}
        )
        put["zero"] = lambda where: _at(where, {write: lambda acts, _: torch.zeros_like(acts)})
        found = losses(model, judge.batches(), put)
        clean, by_mean, by_zero = (found[name].ce for name in ("model", "mean", "zero"))
        for name in dictionaries:
            one = found[f"of {name}"]
            self._add(name, "ce", one.ce - clean, by_mean - clean)
            self._add(name, "kl", one.kl, found["mean"].kl)
            # Where the mean costs nothing there is nothing to win back.
            if by_mean > clean:
                self._add(name, "recovered", (by_mean - one.ce) / (by_mean - clean), 0.0)
            if by_zero > clean and by_mean > clean:
                of_zero = [(by_zero - ce) / (by_zero - clean) for ce in (one.ce, by_mean)]
                self._add(name, "recovered_zero", *of_zero)


def _several(name: str, one: Dictionary | Sequence[Dictionary]) -> tuple[Dictionary, ...]:
    several = (one,) if isinstance(one, Dictionary) else tuple(one)
    if not several or not all(isinstance(each, Dictionary) for each in several):
        raise TypeError(f"{name!r} is a dictionary, or several of different seeds; got {type(one).__name__}.")
    return several


def _checked(
    every: Mapping[str, tuple[Dictionary, ...]],
    controls: Mapping[str, tuple[Dictionary, ...]],
    store: ActivationStore,
    model: TransformerBridge | None,
) -> Dictionary:
    """Return the first dictionary, if all can stand on one card."""
    if not every:
        raise ValueError("A scorecard is of one dictionary or more, got none.")
    if both := every.keys() & controls.keys():
        raise ValueError(f"{min(both)!r} names a dictionary and a control; give one of them another name.")
    first = next(iter(every.values()))[0]
    for name, several in {**every, **controls}.items():
        for one in several:
            if (len(one.sites_in), len(one.sites_out)) != (1, 1):
                raise ValueError(
                    f"A scorecard is of dictionaries that read one named site and rebuild one; {name!r} reads "
                    f"{named(one.sites_in)} and rebuilds {named(one.sites_out)}."
                )
            if (one.sites_in, one.sites_out) != (first.sites_in, first.sites_out):
                raise ValueError(
                    f"Dictionaries on one card are of one site; {name!r} is of {named(one.sites_out)}, the first of "
                    f"{named(first.sites_out)}. Make a card of each."
                )
            if model is not None:
                one.check(model)
    if model is not None:
        store.check(model)
    return first


def _groups(lines: Any, keys: Sequence[str]) -> Iterator[Any]:
    """Yield the values of ``keys``, in the order of their first lines, and the lines that have them."""
    table = pd.DataFrame(lines)
    return iter(table.groupby(list(keys), sort=False)) if len(table) else iter(())


def _encoded(dictionary: Dictionary, part: Part) -> Codes:
    codes = dictionary.encode(part.x)
    return Codes(codes.values.detach(), codes.indices, codes.n_features)


def _at(where: Tensor, edits: Mapping[Site, Edit]) -> dict[Site, Edit]:
    """Return the edits at the chosen tokens alone."""
    return {site: only(where, edit) for site, edit in edits.items()}
