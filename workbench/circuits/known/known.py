"""What is known about a hand-wired model, as data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.dictionaries import Dictionary
from workbench.models import Site, TransformerBridge, tokenize


@dataclass(frozen=True)
class Part:
    """A component: the embedding, a head, a neuron, or the read-out."""

    site: Site
    """``z`` with a head, ``mlp_out`` with a neuron, ``resid_pre`` of the first block or ``resid_post`` of the last."""

    neuron: int | None = None
    """Which neuron of the MLP."""

    def __str__(self) -> str:
        return str(self.site) + ("" if self.neuron is None else f"#{self.neuron}")


@dataclass(frozen=True)
class Node:
    """A component at a position."""

    part: Part
    """The component."""

    role: str
    """The position by what stands there; ``Known.roles`` says where that is."""

    def __str__(self) -> str:
        return f"{self.part} at {self.role}"


@dataclass(frozen=True)
class Edge:
    """What one node writes and another reads."""

    source: Node
    """Who writes, and where."""

    target: Node
    """Who reads, and for which position; keys and values may be read at an earlier one."""

    channel: Literal["query", "key", "value", "in"]
    """How a head reads it; "in" for neurons and the read-out."""

    def __str__(self) -> str:
        return f"{self.source} → {self.channel} of {self.target}"


class Feature(NamedTuple):
    """A feature of the dictionary at a site."""

    site: Site
    id: int


@dataclass(frozen=True)
class Event:
    """What happens to a feature of the residual stream in a block."""

    feature: Feature
    """The feature, of a ``resid_post``."""

    name: str
    """What it stands for."""

    kind: Literal["carried", "processed", "attn", "mlp", "unexplained", "died"]
    """How it came there (Laptev et al. 2025, arXiv 2502.03032): carried; carried and changed by the MLP; born of
    attention or the MLP; from nowhere, as it is never active. "died": the next block erases it."""

    sources: tuple[Feature, ...]
    """The features of the stream before, of ``attn_out`` and ``mlp_out`` that it is the sum of, or that erase it."""


class Case(NamedTuple):
    """A prompt in words, and what belongs to it."""

    prompt: str
    counterfactual: str
    answer: str
    foil: str
    roles: Mapping[str, int]


@dataclass(frozen=True, repr=False)
class Known:
    """A hand-wired model and the truth about it.

    What is the same in all prompts and counterfactuals, as where the position before is, is no node and no edge.
    """

    name: str
    """The function that made it."""

    model: TransformerBridge
    """An ordinary bridge, without norms, whose tokenizer knows the words of the prompts."""

    prompts: Int[Tensor, "prompt pos"]
    """All prompts, a row for each counterfactual that they have; what comes next is asked."""

    answers: Int[Tensor, " prompt"]
    """The right next token."""

    foils: Int[Tensor, " prompt"]
    """A wrong one that the prompt suggests, for differences of logits."""

    counterfactuals: Int[Tensor, "prompt pos"]
    """The prompt with other words in the same roles, to which its answer is no answer."""

    roles: Mapping[str, Int[Tensor, " prompt"]]
    """Where each role stands in each prompt."""

    nodes: tuple[Node, ...]
    """All that the answer goes through, in the order of computation; the last is the read-out."""

    edges: tuple[Edge, ...]
    """All that they hand on to each other."""

    dictionaries: Mapping[Site, Dictionary] = field(default_factory=dict)
    """Dictionaries that rebuild their sites exactly; of ``flow`` only."""

    events: tuple[Event, ...] = ()
    """What happens to every feature in every block; of ``flow`` only."""

    @classmethod
    def of(cls, model: TransformerBridge, cases: Sequence[Case], edges: Sequence[Edge], **rest: Any) -> "Known":
        """Return what is known of ``model``, given prompts in words; the nodes are those that the edges join."""
        prompts, counterfactuals, answers, foils, roles = zip(*cases, strict=True)
        parts, nodes = parts_of(model), {node for edge in edges for node in (edge.source, edge.target)}
        return cls(
            model=model,
            prompts=tokenize(model, [*prompts]),
            answers=tokenize(model, [*answers])[:, 1],
            foils=tokenize(model, [*foils])[:, 1],
            counterfactuals=tokenize(model, [*counterfactuals]),
            roles={role: torch.tensor([at[role] for at in roles]) for role in roles[0]},
            nodes=tuple(sorted(nodes, key=lambda node: (parts.index(node.part), node.role))),
            edges=tuple(edges),
            **rest,
        )

    def __repr__(self) -> str:
        return f"Known({self.name!r}, {len(self.prompts)} prompts, {len(self.nodes)} nodes, {len(self.edges)} edges)"

    @property
    def irrelevant(self) -> tuple[Part, ...]:
        """The components that play no part in any prompt: no logit that is asked for depends on them."""
        used = {node.part for node in self.nodes}
        return tuple(part for part in parts_of(self.model) if part not in used)


def parts_of(model: TransformerBridge) -> tuple[Part, ...]:
    """Return every component of ``model`` in the order of computation."""
    parts = [Part(Site(0, "resid_pre"))]
    for layer in range(model.cfg.n_layers):
        parts += [Part(Site(layer, "z", head)) for head in range(model.cfg.n_heads)]
        if not model.cfg.attn_only:
            parts += [Part(Site(layer, "mlp_out"), neuron) for neuron in range(model.cfg.d_mlp or 0)]
    return (*parts, Part(Site(model.cfg.n_layers - 1)))
