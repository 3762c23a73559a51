"""What every feature of a dictionary does on a store of activations, in one pass over it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.activations import ActivationStore, Rows
from workbench.dictionaries import Codes
from workbench.dictionaries.inputs import named, pick
from workbench.features.effects import direct_logits, first_order
from workbench.features.encoding import AnyDictionary, encoded, sparse
from workbench.features.feature import AFTER, BEFORE
from workbench.features.featureset import FeatureSet
from workbench.features.keep import Best
from workbench.features.matches import Labels
from workbench.features.neighbours import beside, nearest
from workbench.features.sketch import Sketch
from workbench.features.tally import Tally
from workbench.models import Site, TransformerBridge

CHUNK = 32_768
"""Rows encoded at a time, cut where a document ends."""

TOP, SAMPLED = 12, 32
"""Examples kept of each feature: the strongest, and as many drawn at random."""

COMPANY = 32
"""Of the other features on a sampled row, the strongest ones that are remembered."""

QUANTILES = torch.arange(21, dtype=torch.double) / 20
BINS = 40
PLACES = 16
"""Position 0, 1 to 2, 3 to 6, and so on, by powers of two."""


@torch.no_grad()
def describe(
    dictionary: AnyDictionary, store: ActivationStore, model: TransformerBridge | None = None, *, seed: int = 0
) -> FeatureSet:
    """Return what each feature of ``dictionary`` does on the rows of ``store``.

    A feature is active where its code is positive. Counts, means and maxima are exact; quantiles are right to half a
    per cent of the rank. What needs a sample (company, examples by quantile) is drawn uniformly from the
    activations of each feature. Memory grows with the dictionary, not with the store.

    Args:
        dictionary: Ours, or any object with ``encode`` and ``W_dec``.
        store: The rows; labels that they carry are matched with the features.
        model: The model that both belong to. With it there are tokens as text, the direct effect on the logits, and the
            effect on the loss of leaving a feature out, to first order.
        seed: Of what is drawn at random.
    """
    sites_in, sites_out = _sites(dictionary, store)
    if model is not None:
        store.check(model)
        if hasattr(dictionary, "check"):
            dictionary.check(model)  # type: ignore[attr-defined]
    W_dec = dictionary.W_dec.detach().flatten(1)
    n_features = len(W_dec)
    random = torch.Generator().manual_seed(seed)
    totals = torch.zeros(2, n_features, dtype=torch.float64)
    sketch, tally, labels = Sketch(n_features, seed), Tally(n_features), Labels(n_features, store.names)
    top, sample = Best(n_features, TOP), Best(n_features, SAMPLED)
    places = torch.zeros(n_features, PLACES, dtype=torch.long)
    seen_tokens, seen_places = torch.zeros(0, dtype=torch.long), torch.zeros(PLACES, dtype=torch.long)
    for number, rows in enumerate(chunks(store, sites_in, min(CHUNK, -(-len(store) // 8)))):
        codes = encoded(dictionary, pick(rows.acts, sites_in))
        features, row, values = _active(codes)
        place = _octave(rows.pos)
        places_of = features * len(rows.tokens) + row
        totals[0] += torch.bincount(features, values.double(), n_features)
        totals[1] += torch.bincount(features, values.double() ** 2, n_features)
        sketch.add(features, values)
        tally.add(features, rows.tokens[row])
        places += torch.bincount(features * PLACES + place[row], minlength=places.numel()).view_as(places)
        met = torch.bincount(rows.tokens, minlength=len(seen_tokens))
        seen_tokens = met + F.pad(seen_tokens, (0, len(met) - len(seen_tokens)))
        seen_places += torch.bincount(place, minlength=PLACES)
        labels.add(features, row, rows.labels, half=number % 2)

        def example(i: Tensor) -> dict[str, Tensor]:
            return _example(rows, places_of, values, i)  # noqa: B023 (asked for within the turn)

        def sampled(i: Tensor) -> dict[str, Tensor]:
            return example(i) | _company(codes, row[i])  # noqa: B023

        top.add(features, values, example)
        sample.add(features, torch.rand(len(features), generator=random), sampled)
    if not len(top.of):
        raise ValueError("No feature of this dictionary is active on any row of this store; is it the one it reads?")
    alive = sketch.count > 0
    strongest = torch.where(alive, top.scores.amax(1), 0)
    quantiles = sketch.at(QUANTILES)
    quantiles[alive, -1] = strongest[alive]
    tokens, met = tally.top(10)
    columns: dict[str, Tensor] = {
        "count": sketch.count,
        "mean": (totals[0] / sketch.count.clamp_min(1)).float(),
        "max": strongest,
        "quantiles": quantiles,
        "histogram": sketch.shares(torch.linspace(0, 1, BINS + 1) * strongest[:, None]),
        "tokens": tokens,
        "token_counts": met,
        "token_rows": seen_tokens[tokens.clamp_max(len(seen_tokens) - 1)],
        "places": places,
        **nearest(W_dec),
        **beside(sample, sketch.count, totals, len(store)),
        **labels.matches(),
        "examples": torch.isfinite(top.scores).sum(1),
        "samples": torch.isfinite(sample.scores).sum(1),
        **{name: torch.cat([top.of[name], sample.of[name]], 1) for name in top.of},
    }
    if model is not None:
        columns |= direct_logits(model, W_dec, sites_out, store)
        columns |= first_order(model, dictionary, sites_in, sites_out, store)
    return FeatureSet(
        columns,
        rows=len(store),
        places=seen_places.tolist(),
        labels=store.names,
        words=_words(model, len(seen_tokens)),
        provenance={
            "model": store.fingerprint,
            "sites_in": [str(site) for site in sites_in],
            "sites_out": [str(site) for site in sites_out],
            "dictionary": getattr(dictionary, "provenance", {}),
            "seed": seed,
            "tops": TOP,
        },
    ).attached(dictionary, store)


def chunks(store: ActivationStore, sites: tuple[Site, ...], size: int) -> Iterator[Rows]:
    """Yield all rows in order, about ``size`` at a time; a document is not divided unless it is longer."""
    start = 0
    while start < len(store):
        rows = store.rows(slice(start, start + size), sites)
        whole = int((rows.doc == rows.doc[-1]).nonzero()[0]) if start + size < len(store) else 0
        end = whole or len(rows.doc)
        yield Rows(
            {site: acts[:end] for site, acts in rows.acts.items()},
            rows.tokens[:end],
            rows.pos[:end],
            rows.doc[:end],
            {name: codes[:end] for name, codes in rows.labels.items()},
            rows.names,
        )
        start += end


def _sites(dictionary: AnyDictionary, store: ActivationStore) -> tuple[tuple[Site, ...], tuple[Site, ...]]:
    """Return what the dictionary reads and rebuilds; one that names no site belongs to a store of one."""
    sites_in, sites_out = getattr(dictionary, "sites_in", ()), getattr(dictionary, "sites_out", ())
    if sites_in:
        return sites_in, sites_out or sites_in
    if len(store.sites) > 1:
        raise ValueError(
            f"This dictionary names no site, but the store holds {named(store.sites)}; give a store of one."
        )
    return store.sites, store.sites


def _active(codes: Codes) -> tuple[Tensor, Tensor, Tensor]:
    """Return the features, rows and values of all that is active, by feature and then by row."""
    positive = torch.where(codes.values > 0, codes.values, 0)
    # A table by rows turned into one by columns is a sort without a comparison.
    table = sparse(Codes(positive, codes.indices, codes.n_features)).tocsc()
    features = torch.repeat_interleave(torch.from_numpy(np.diff(table.indptr)).long())
    return features, torch.from_numpy(table.indices).long(), torch.from_numpy(table.data)


def _octave(pos: Tensor) -> Tensor:
    return (pos + 1).log2().long().clamp_max(PLACES - 1)


def _example(rows: Rows, places: Tensor, values: Tensor, chosen: Tensor) -> dict[str, Tensor]:
    """Return what surrounds the chosen entries: tokens, -1 outside of the text, and the feature's code on each.

    ``places`` are the entries as numbers feature * rows + row, in order, so that the entries of one feature around a
    row are neighbours.
    """
    n, row = len(rows.tokens), places[chosen] % len(rows.tokens)
    offset = torch.arange(-BEFORE, AFTER + 1)
    at = row[:, None] + offset
    there = (at >= 0) & (at < n)
    at = at.clamp(0, n - 1)
    there &= (rows.doc[at] == rows.doc[row, None]) & (rows.pos[at] - rows.pos[row, None] == offset)
    around = torch.searchsorted(places, places[chosen] - BEFORE)[:, None] + torch.arange(len(offset))
    around = around.clamp_max(len(places) - 1)
    slot = places[around] - places[chosen, None] + BEFORE
    inside = (slot >= 0) & (slot < len(offset))
    acts = torch.zeros(slot.shape).scatter_add_(1, slot.clamp(0, len(offset) - 1), values[around] * inside) * there
    return {
        "value": values[chosen],
        "example_tokens": torch.where(there, rows.tokens[at], -1).int(),
        "example_acts": acts.half(),
        "example_doc": rows.doc[row].int(),
        "example_pos": rows.pos[row].int(),
    }


def _company(codes: Codes, row: Tensor) -> dict[str, Tensor]:
    """Return the strongest features of ``row``."""
    values, others = codes.values[row], codes.indices[row]
    if values.shape[1] > COMPANY:
        values, slots = values.topk(COMPANY, 1)
        others = others.gather(1, slots)
    missing = (0, COMPANY - values.shape[1])
    return {"company": F.pad(others, missing).int(), "company_values": F.pad(values, missing)}


def _words(model: TransformerBridge | None, n_tokens: int) -> list[str]:
    """Return the tokens as text, where there is a tokenizer to say."""
    if model is None or model.tokenizer is None:
        return [f"#{token}" for token in range(n_tokens)]
    return [_word(model.tokenizer, token) for token in range(model.cfg.d_vocab)]


def _word(tokenizer: Any, token: int) -> str:
    """Return a token as text, with the space that it stands for: some tokenizers drop that of the first word."""
    text, piece = tokenizer.decode([token]), tokenizer.convert_ids_to_tokens(token)
    return f" {text}" if str(piece).startswith("▁") and not text.startswith(" ") else text
