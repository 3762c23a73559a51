"""The exact oracle: what may come next, and how likely, by filtering over consistent executions.

The belief after a prefix is a distribution over the executions that could have produced it. One more token
keeps the executions that can say it and weights them by how likely they were to; executions that can no longer
be told apart are one. Nothing is approximated and nothing is dropped.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.language.engine import Arc, State, arcs
from workbench.language.splits import Split
from workbench.language.vocabulary import EOS

Belief = dict[State | None, float]
"""Consistent executions and their probabilities; None is a document that has ended."""


class Oracle:
    """The exact next-token distribution of a mixture of programs under one split.

    Args:
        starts: The first state of each program, with its family's name and its share of the documents.
        vocabulary: Word → token id.
        split: Whose distribution.
        remember: Expansions kept; past it the memory starts afresh.
    """

    def __init__(
        self,
        starts: Mapping[State, tuple[str, float]],
        vocabulary: Mapping[str, int],
        split: Split,
        remember: int = 300_000,
    ) -> None:
        total = sum(share for _, share in starts.values())
        self.start: Belief = {state: share / total for state, (_, share) in starts.items()}
        self._family = {state.step: name for state, (name, _) in starts.items()}
        self.split: Split = split
        self.vocabulary, self.remember = vocabulary, remember
        self._arcs: dict[State, list[tuple[int, float, State | None]]] = {}
        self._arcs_labelled: dict[State, list[Arc]] = {}

    def expand(self, state: State) -> list[tuple[int, float, State | None]]:
        """Return (token, probability, state after it) for every next token of one execution."""
        found = self._arcs.get(state)
        if found is None:
            if len(self._arcs) >= self.remember:
                self._arcs.clear()
            merged: dict[tuple[int, State | None], float] = {}
            for arc in arcs(state, self.split):
                token = EOS if arc.word is None else self.vocabulary[arc.word]
                merged[token, arc.state] = merged.get((token, arc.state), 0.0) + arc.probability
            found = self._arcs[state] = [(token, p, after) for (token, after), p in merged.items()]
        return found

    def step(self, belief: Belief) -> tuple[dict[int, float], dict[int, Belief]]:
        """Return the next-token distribution of ``belief``, and the unnormalised belief after each token."""
        distribution: dict[int, float] = {}
        after: dict[int, Belief] = {}
        for state, weight in belief.items():
            if state is None:
                continue
            for token, p, following in self.expand(state):
                joint = weight * p
                distribution[token] = distribution.get(token, 0.0) + joint
                beliefs = after.setdefault(token, {})
                beliefs[following] = beliefs.get(following, 0.0) + joint
        return distribution, after

    def next_token(self, tokens: Sequence[int]) -> Float[Tensor, "pos d_vocab"]:
        """Return P(next token | tokens so far) after each of ``tokens``, the first of which is BOS.

        Rows after a token that could not come there are zero: nothing can follow.
        """
        out = torch.zeros(len(tokens), len(self.vocabulary), dtype=torch.float64)
        belief = self.start
        for position, following in enumerate([*tokens[1:], None]):
            distribution, after = self.step(belief)
            if not distribution:
                break
            out[position, list(distribution)] = torch.tensor(list(distribution.values()), dtype=torch.float64)
            belief = after.get(following, {}) if following is not None else {}
            total = sum(belief.values())
            belief = {state: weight / total for state, weight in belief.items()}
        return out

    def labels(
        self, tokens: Sequence[int], columns: Sequence[str], *, ahead: bool
    ) -> dict[str, list[dict[str, float]]]:
        """Return, for each column and position, P(value | tokens so far) of the label there, "" where none applies.

        The label is that of the token at the position, or with ``ahead`` of the token to come.
        """
        found: dict[str, list[dict[str, float]]] = {column: [] for column in columns}
        belief = self.start
        for position, following in enumerate(tokens[1:]):
            if position == 0 and not ahead:
                for column in columns:
                    found[column].append({"": 1.0})  # BOS carries none
            sums: dict[str, dict[str, float]] = {column: {} for column in columns}
            after: Belief = {}
            for state, weight in belief.items():
                if state is None:
                    continue
                for arc in self._labelled(state):
                    token = EOS if arc.word is None else self.vocabulary[arc.word]
                    joint = weight * arc.probability
                    if token == following:
                        after[arc.state] = after.get(arc.state, 0.0) + joint
                    if ahead or token == following:
                        for column, sum_of in sums.items():
                            value = arc.labels.get(column, "")
                            sum_of[value] = sum_of.get(value, 0.0) + joint
            total = sum(after.values())
            if total == 0.0:
                raise ValueError(f"the language does not allow the token at position {position + 1}.")
            belief = {state: weight / total for state, weight in after.items()}
            for column, sum_of in sums.items():
                mass = sum(sum_of.values())
                found[column].append({value: weight / mass for value, weight in sum_of.items()})
        return found

    def _labelled(self, state: State) -> list[Arc]:
        """Return the arcs of ``state``, their labels with that of the family."""
        arcs_of = self._arcs_labelled.get(state)
        if arcs_of is None:
            if len(self._arcs_labelled) >= self.remember:
                self._arcs_labelled.clear()
            family = self._family[state.step]
            arcs_of = []
            for arc in arcs(state, self.split):
                if arc.state is not None:
                    self._family.setdefault(arc.state.step, family)
                arcs_of.append(arc._replace(labels={"family": family} | arc.labels if arc.word else {}))
            self._arcs_labelled[state] = arcs_of
        return arcs_of
