"""Contexts by which features are explained, and others, of other documents, on which the explanations are judged."""

import random
from collections import Counter
from dataclasses import replace
from itertools import islice

import pandas as pd
import torch

from workbench.dictionaries.inputs import pick
from workbench.features.encoding import encoded
from workbench.features.feature import Example, Feature
from workbench.features.featureset import FeatureSet

BEFORE, AFTER = 10, 5
"""Tokens on either side of a context's own, where the text has as many."""

POOL = 768
"""Places of the store, drawn at random, among which a feature's silent contexts are looked for."""

SILENT = 40
"""Silent contexts of a feature in either half, at most."""


class Shown(Feature):
    """A feature as an explainer sees it: its contexts come from the shown documents only.

    ``top``, ``sample``, ``silent``, ``groups`` and ``tokens`` know nothing of the documents on which explanations are
    judged; other statistics, such as ``logits`` and ``matches``, are those of the whole store.
    """

    def __init__(self, contexts: "Contexts", number: int) -> None:
        super().__init__(contexts.features, number)
        self._contexts = contexts

    @property
    def top(self) -> list[Example]:
        """Where it is most strongly active, strongest first."""
        return [_cut(one) for one in super().top if not self._contexts.held(one.doc)]

    @property
    def sample(self) -> list[Example]:
        """Where it is active, drawn at random."""
        return [_cut(one) for one in super().sample if not self._contexts.held(one.doc)]

    @property
    def silent(self) -> list[Example]:
        """Where it is silent on every token, drawn at random."""
        return self._contexts.silent(self.number, held=False)

    @property
    def tokens(self) -> pd.DataFrame:
        """The tokens it is active on most often in ``sample``, and in ``sample`` and ``silent``, how often on each."""
        sample, silent = self.sample, self.silent
        active = Counter(word for one in sample for word, act in zip(one.words, one.acts, strict=True) if act > 0)
        met = Counter(word for one in (*sample, *silent) for word in one.words)
        lines = [(word, n / active.total(), n / met[word]) for word, n in active.most_common()]
        return pd.DataFrame(lines, columns=["token", "share", "of_token"])


class Contexts:
    """The contexts of a set of features, in two halves: each document is shown or held out, drawn by ``seed``."""

    @torch.no_grad()
    def __init__(self, features: FeatureSet, seed: int) -> None:
        dictionary, store = features.sources
        if len(store) != features.rows:
            raise ValueError(
                f"These features were described on {features.rows} rows and this store has {len(store)}; give theirs."
            )
        self.seed = seed
        self.features = features
        drawn = torch.randint(len(store), (POOL,), generator=torch.Generator().manual_seed(seed))
        offsets = torch.arange(-BEFORE, AFTER + 1)
        index = (drawn.unique()[:, None] + offsets).clamp(0, len(store) - 1)
        unique, self._row = index.unique(return_inverse=True)  # [context, place] → row
        self._rows = rows = store.rows(unique, features.sites_in)
        doc, pos = rows.doc[self._row], rows.pos[self._row]
        self._there = (doc == doc[:, BEFORE, None]) & (pos - pos[:, BEFORE, None] == offsets)
        codes = encoded(dictionary, pick(rows.acts, features.sites_in))
        row, slot = (codes.values > 0).nonzero(as_tuple=True)
        self._feature, order = codes.indices[row, slot].long().sort(stable=True)
        self._active = row[order]
        self._order = random.Random(seed).sample(range(len(index)), len(index))

    def held(self, doc: int) -> bool:
        """Return whether a document is held out, for judging only."""
        return random.Random(f"{self.seed} {doc}").random() < 0.5

    def active(self, feature: int) -> list[Example]:
        """Return the held-out contexts of the sample of a feature."""
        return [_cut(one) for one in self.features[feature].sample if self.held(one.doc)]

    def silent(self, feature: int, *, held: bool) -> list[Example]:
        """Return contexts in which a feature is active on no token, in random order."""
        low, high = torch.searchsorted(self._feature, torch.tensor([feature, feature + 1])).tolist()
        active = torch.zeros(len(self._rows.tokens), dtype=torch.bool)
        active[self._active[low:high]] = True
        quiet = ~(active[self._row] & self._there).any(1)
        chosen = (i for i in self._order if quiet[i] and self.held(self._doc(i)) == held)
        return [self._context(i) for i in islice(chosen, SILENT)]

    @property
    def words(self) -> list[str]:
        """The words that occur in all these contexts, each once."""
        return [self.features.words[token] for token in self._rows.tokens.unique().tolist()]

    def _doc(self, i: int) -> int:
        return int(self._rows.doc[self._row[i, BEFORE]])

    def _context(self, i: int) -> Example:
        row, there = self._row[i], self._there[i]
        words = [self.features.words[token] for token in self._rows.tokens[row[there]].tolist()]
        at = int(there[:BEFORE].sum())
        return Example(0.0, words, [0.0] * len(words), at, self._doc(i), int(self._rows.pos[row[BEFORE]]))


def _cut(one: Example) -> Example:
    """Return an example with no more text than a context has."""
    start = max(one.at - BEFORE, 0)
    chosen = slice(start, one.at + AFTER + 1)
    return replace(one, words=one.words[chosen], acts=one.acts[chosen], at=one.at - start)
