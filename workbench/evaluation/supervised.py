"""Supervised dictionaries: what attributes that are known say about activations, and what they let one change.

The skyline of Makelov et al. (2024, arXiv 2405.08366): with the attributes of a task given, one direction for each of
their values rebuilds activations, and exchanging a few of them edits what the model says. A learnt dictionary is asked
for the same on the same prompts, with its codes in the place of the attributes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.dictionaries import Codes, Dictionary
from workbench.models import Site, TransformerBridge, record, resume

TOKENS = 8192
"""Tokens in a forward: logits are kept of one position in each prompt."""

Estimator = Literal["mean", "least squares"]


@dataclass(frozen=True)
class Labelled:
    """Activations and what is known about each."""

    acts: Float[Tensor, "row d"]
    """One activation per row."""

    attributes: Mapping[str, Int[Tensor, " row"]]
    """The value of each attribute, a number from 0; -1 where it has none. (Labels of a store, less one.)"""

    def __post_init__(self) -> None:
        _check(self.attributes, len(self.acts))


@dataclass(frozen=True)
class Supervised:
    """One direction for each value of each attribute: ``bias`` plus those of a row's values rebuilds the row."""

    bias: Float[Tensor, " d"]
    """What a row without attributes is rebuilt as; of the estimator "mean", the mean of all rows."""

    vectors: Mapping[str, Float[Tensor, "_value d"]]
    """Of each attribute, the direction of each value; NaN for a value that no row had."""

    @property
    def W_dec(self) -> Float[Tensor, "value d"]:
        """The directions of all attributes, one after the other, as the rows of a dictionary."""
        return torch.cat([*self.vectors.values()])

    def encode(self, attributes: Mapping[str, Int[Tensor, " row"]]) -> Float[Tensor, "row value"]:
        """Return the code of each row: 1 for each value that it has."""
        if missing := [name for name in self.vectors if name not in attributes]:
            raise ValueError(f"This dictionary was made of attributes that these rows lack: {', '.join(missing)}.")
        columns = []
        for name, vectors in self.vectors.items():
            values = attributes[name]
            known = torch.cat([~vectors.isnan().any(1), torch.tensor([True])])  # the last is of -1
            if unknown := sorted({v for v in values.unique().tolist() if v >= len(vectors) or not known[v]}):
                raise ValueError(
                    f"No row that this dictionary was made of had {name} = {', '.join(map(str, unknown))}; make it of "
                    "rows with every value, or leave these out."
                )
            columns.append(values[:, None] == torch.arange(len(vectors)))
        return torch.cat(columns, dim=1).float()

    def rebuild(self, attributes: Mapping[str, Int[Tensor, " row"]]) -> Float[Tensor, "row d"]:
        """Return the activations that these attributes stand for."""
        return self.bias + self.encode(attributes) @ self.W_dec.nan_to_num()


def supervise(rows: Labelled, *, estimator: Estimator = "mean") -> Supervised:
    """Return the dictionary of the attributes of ``rows``.

    Args:
        rows: Some activations for each value.
        estimator: "mean" gives a value the mean of its rows less the mean of all, which is right where attributes
            are independent of each other; "least squares" the directions that together leave the smallest squared
            error, and of all such the shortest.
    """
    if estimator not in get_args(Estimator):
        raise ValueError(f"estimator is one of {', '.join(map(repr, get_args(Estimator)))}, got {estimator!r}.")
    if len(rows.acts) < 2 or not rows.attributes:
        raise ValueError(
            f"A dictionary is made of 2 or more rows and 1 or more attributes, got {len(rows.acts)} and "
            f"{len(rows.attributes)}."
        )
    x = rows.acts.double()
    mean = x.mean(0)
    hot = {name: columns.double() for name, columns in one_hots(rows).items()}
    counts = {name: columns.sum(0) for name, columns in hot.items()}
    if estimator == "mean":
        found = {name: columns.T @ x / counts[name][:, None] - mean for name, columns in hot.items()}
        bias = mean
    else:
        joint = torch.cat([*hot.values()], dim=1)
        share = joint.mean(0)
        # The columns of an attribute sum to one: of the solutions, gelsd finds the shortest.
        solution = torch.linalg.lstsq(joint - share, x - mean, driver="gelsd").solution
        bias = mean - share @ solution
        found = dict(zip(hot, solution.split([columns.shape[1] for columns in hot.values()]), strict=True))
    vectors = {name: v.masked_fill(counts[name][:, None] == 0, math.nan).to(rows.acts) for name, v in found.items()}
    return Supervised(bias.to(rows.acts), vectors)


@dataclass(frozen=True)
class Prompts:
    """Prompts that ask for one token, and what is known about each."""

    tokens: Int[Tensor, "prompt pos"]
    """Token ids, padded on the right."""

    ends: Int[Tensor, " prompt"]
    """The position of each prompt's last token, where the answer is asked for."""

    answers: Int[Tensor, " prompt"]
    """The right token."""

    foils: Int[Tensor, " prompt"]
    """The token it is compared with."""

    attributes: Mapping[str, Int[Tensor, " prompt"]]
    """As those of ``Labelled``."""

    at: Int[Tensor, " prompt"] | None = None
    """The position of the activation that dictionaries rebuild; None is ``ends``."""

    def __post_init__(self) -> None:
        if self.at is None:
            object.__setattr__(self, "at", self.ends)
        _check(self.attributes, len(self.tokens))
        for name in ("ends", "answers", "foils", "at"):
            if len(getattr(self, name)) != len(self.tokens):
                raise ValueError(f"There are {len(self.tokens)} prompts, but {len(getattr(self, name))} {name}.")


@dataclass(frozen=True)
class Place:
    """One site of a model, at one position of each prompt: what is there, and what follows if it is changed."""

    model: TransformerBridge
    """The model."""

    site: Site
    """Where its activations are read and replaced; not ``pattern``, which has no activation per token."""

    prompts: Prompts
    """What it is run on."""

    acts: Float[Tensor, "prompt d"] = field(init=False)
    """The activations; heads end to end."""

    _all: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.site.stream == "pattern":
            raise ValueError(f"'{self.site}' has no activation of a token; take z, or another stream.")
        tokens = self.prompts.tokens
        parts = [record(self.model, part, [self.site])[self.site] for part in tokens.split(self._size)]
        object.__setattr__(self, "_all", torch.cat(parts))
        object.__setattr__(self, "acts", self._all[torch.arange(len(tokens)), self.prompts.at].flatten(1).cpu())

    @property
    def labelled(self) -> Labelled:
        """The activations with the attributes of their prompts."""
        return Labelled(self.acts, self.prompts.attributes)

    @property
    def _size(self) -> int:
        return max(1, TOKENS // self.prompts.tokens.shape[1])

    @torch.no_grad()
    def logits(self, acts: Float[Tensor, "prompt d"]) -> Float[Tensor, "prompt d_vocab"]:
        """Return what the model says at the end of each prompt with ``acts`` in the place of its activations."""
        found = []
        for rows in torch.arange(len(acts)).split(self._size):
            there = self._all[rows].clone()
            at = torch.arange(len(rows)), self.prompts.at[rows]  # pyright: ignore[reportOptionalSubscript]
            there[at] = acts[rows].to(there).view_as(there[at])
            logits = resume(self.model, self.site, there, tokens=self.prompts.tokens[rows])
            found.append(logits[torch.arange(len(rows)), self.prompts.ends[rows]].float().cpu())
        return torch.cat(found)

    def logit_difference(self, acts: Float[Tensor, "prompt d"]) -> float:
        """Return the mean of logit(answer) - logit(foil) with ``acts`` there."""
        logits = self.logits(acts)
        answers, foils = (logits.gather(1, ids[:, None].cpu()) for ids in (self.prompts.answers, self.prompts.foils))
        return float((answers - foils).mean())


def codes_of(dictionary: Dictionary | Supervised, rows: Labelled) -> Float[Tensor, "row feature"]:
    """Return the dense codes of ``rows``: by their activations, or of a supervised dictionary by their attributes."""
    if isinstance(dictionary, Supervised):
        return dictionary.encode(rows.attributes)
    if not dictionary.autoencodes or len(dictionary.shape_in) > 1:
        raise ValueError(f"Only a dictionary that rebuilds the one site it reads can stand for it, got {dictionary!r}.")
    with torch.no_grad():
        return dictionary.encode(rows.acts).dense().float().cpu()


@dataclass(frozen=True)
class Approximation:
    """What a task keeps when activations are replaced by what a dictionary says of them."""

    sufficiency: float
    """The share of the logit difference that reconstructions keep: 1 as clean, 0 as with all activations the mean."""

    necessity: float
    """The share that is lost with what the reconstructions leave out, added to the mean, in their place: 1 is all."""

    clean: float
    """The mean logit difference of the task, in nats."""

    ablated: float
    """The same with the mean in the place of every activation."""


def approximation(
    dictionary: Dictionary | Supervised,
    place: Place,
    mean: Float[Tensor, " d"],
    *,
    features: Bool[Tensor, " feature"] | None = None,
) -> Approximation:
    """Return how much of a task lies in what ``dictionary`` rebuilds.

    With a logit difference L, activations a, reconstructions â and mean ā, sufficiency is (L(â) - L(ā)) / (L(a) - L(ā))
    and necessity (L(a) - L(ā + a - â)) / (L(a) - L(ā)): our normalisation, so that both are 0 of the mean and 1 of a
    perfect dictionary. Either may pass 1, where what is left out was in the way of the answer.

    Args:
        dictionary: What rebuilds.
        place: The activations and their model.
        mean: The mean of activations of this task, of other prompts.
        features: Rebuild with these alone, such as those with a high F1: what is named by what they are said to mean.
    """
    codes, W_dec, bias = _parts(dictionary, place)
    rebuilt = bias + (codes if features is None else codes * features) @ W_dec
    clean, ablated = place.logit_difference(place.acts), place.logit_difference(mean.expand_as(place.acts))
    if clean <= ablated:
        raise ValueError(
            f"With the mean in the place of all activations at '{place.site}' the logit difference is {ablated:.3g}, "
            f"no less than the {clean:.3g} of the model as it is: this place does not decide the task; take another."
        )
    kept = place.logit_difference(rebuilt) - ablated
    left = clean - place.logit_difference(mean + place.acts - rebuilt)
    return Approximation(kept / (clean - ablated), left / (clean - ablated), clean, ablated)


@dataclass(frozen=True)
class Control:
    """How well a few features turn what a model says about one prompt into what it says about another."""

    k: tuple[int, ...]
    """How many features are exchanged, at most."""

    agreement: Float[Tensor, " k"]
    """Share of the pairs in which the next token is that of the true activation swap."""

    magnitude: Float[Tensor, " k"]
    """The weights of the exchanged features, where those of all features of an activation sum to one: the mean over
    what is taken out and what is put in."""

    by_meaning: Float[Tensor, " k"]
    """As ``agreement``, with the features chosen by their F1 and not by where they lead."""

    magnitude_by_meaning: Float[Tensor, " k"]
    """As ``magnitude``, of these."""

    unedited: float
    """As ``agreement``, with no feature exchanged: 1 where the swap changes nothing."""

    def to_frame(self) -> pd.DataFrame:
        """Return one row per k."""
        names = ("agreement", "magnitude", "by_meaning", "magnitude_by_meaning")
        return pd.DataFrame({"k": self.k} | {name: getattr(self, name).numpy() for name in names})


def control(
    dictionary: Dictionary | Supervised,
    sources: Place,
    targets: Place,
    *,
    train: Labelled,
    k: Sequence[int] = (2, 4, 6),
) -> Control:
    """Exchange ``k`` features of each source for what they are in its target, and hold that against the true swap.

    In the first way a feature is chosen for where it leads: greedily, each time the one whose exchange brings the
    activation nearest to the target's, until none brings it nearer. In the second for what it means: among the
    features of either activation, those with the largest F1 on ``train`` for the value that an attribute has there,
    of attributes in which the two differ. The part that the dictionary does not rebuild stays as it was.

    Args:
        dictionary: Whose features.
        sources: The prompts that are edited.
        targets: As many, one for each; of tokens that may differ.
        train: Other rows, from which meanings are read.
        k: How many features.
    """
    if len(sources.acts) != len(targets.acts):
        raise ValueError(f"Each source has a target, got {len(sources.acts)} sources and {len(targets.acts)} targets.")
    if not k or min(k) < 1:
        raise ValueError(f"k lists numbers of features, each at least 1, got {tuple(k)}.")
    from_, W_dec, _ = _parts(dictionary, sources)
    to = codes_of(dictionary, targets.labelled)
    truth = sources.logits(targets.acts).argmax(1)
    weights = 0.5 * (_weights(from_, W_dec) + _weights(to, W_dec))

    def edited(exchanged: Tensor) -> tuple[float, float]:
        new = sources.acts + ((to - from_) * exchanged) @ W_dec
        agreed = (sources.logits(new).argmax(1) == truth).float().mean()
        return float(agreed), float((weights * exchanged).sum(1).mean())

    ranks = _nearest(from_, to, W_dec, targets.acts - sources.acts, max(k))
    meant = _meant(from_, to, sources.prompts.attributes, targets.prompts.attributes, dictionary, train)
    order = meant.argsort(dim=1, descending=True, stable=True).argsort(1).masked_fill(meant <= 0, len(W_dec))
    near, named = (torch.tensor([edited(rank < most) for most in k]) for rank in (ranks, order))
    unedited = float((sources.logits(sources.acts).argmax(1) == truth).float().mean())
    return Control(tuple(k), near[:, 0], near[:, 1], named[:, 0], named[:, 1], unedited)


def f1_scores(active: Float[Tensor, "row feature"], true: Float[Tensor, "row predicate"]) -> Tensor:
    """Return F1 [predicate, feature] of each feature as a detector of each predicate, both of zeros and ones."""
    both = true.T @ active
    return 2 * both / (true.sum(0)[:, None] + active.sum(0)).clamp_min(1)


def one_hots(rows: Labelled, like: Labelled | None = None) -> dict[str, Float[Tensor, "row _value"]]:
    """Return the values of each attribute as columns, as many as ``like`` has."""
    widths = {name: int(values.max()) + 1 for name, values in (like or rows).attributes.items()}
    return {name: (rows.attributes[name][:, None] == torch.arange(n)).float() for name, n in widths.items()}


def _parts(dictionary: Dictionary | Supervised, place: Place) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes, directions and bias: ``codes @ directions + bias`` rebuilds the activations."""
    codes = codes_of(dictionary, place.labelled)
    if isinstance(dictionary, Supervised):
        return codes, dictionary.W_dec.nan_to_num(), dictionary.bias
    W_dec = dictionary.W_dec.detach()
    nothing = W_dec.new_zeros(1, 1)
    with torch.no_grad():
        bias = dictionary.decode(Codes(nothing, nothing.long(), dictionary.n_features))[0]
    return codes, W_dec.float().cpu(), bias.float().cpu()


def _weights(codes: Tensor, W_dec: Tensor) -> Tensor:
    """Return the share [row, feature] that each feature has in the length of what the codes rebuild, less the bias."""
    rebuilt = codes @ W_dec
    return codes * (rebuilt @ W_dec.T) / rebuilt.square().sum(1, keepdim=True).clamp_min(1e-30)


def _nearest(from_: Tensor, to: Tensor, W_dec: Tensor, way: Tensor, most: int) -> Tensor:
    """Return the rank [pair, feature] in which features are exchanged, and ``most`` of those that are not."""
    change, squares = to - from_, W_dec.square().sum(1)
    ranks = torch.full(change.shape, most)
    for rank in range(min(most, len(W_dec))):
        gain = change * (2 * way @ W_dec.T - change * squares)
        best, chosen = gain.masked_fill(ranks < most, 0).max(1, keepdim=True)
        ranks.scatter_(1, chosen, torch.where(best > 0, rank, ranks.gather(1, chosen)))
        step = torch.where(best > 0, change.gather(1, chosen), 0)
        way = way - step * W_dec[chosen[:, 0]]
    return ranks


def _meant(
    from_: Tensor,
    to: Tensor,
    here: Mapping[str, Tensor],
    there: Mapping[str, Tensor],
    dictionary: Dictionary | Supervised,
    train: Labelled,
) -> Tensor:
    """Return the F1 [pair, feature] of each active feature for what differs between the sides; 0 for all others."""
    active = (codes_of(dictionary, train) != 0).float()
    best = torch.zeros_like(from_)
    for name, columns in one_hots(train).items():
        table = torch.cat([f1_scores(active, columns), active.new_zeros(1, active.shape[1])])  # the last is of -1
        differs = (here[name] != there[name])[:, None]
        for side, values in ((from_, here[name]), (to, there[name])):
            if int(values.max()) >= len(columns.T):
                raise ValueError(f"No row of train has {name} = {int(values.max())}, so no meaning is known for it.")
            best = torch.maximum(best, table[values] * (differs & (side != 0)))
    return best


def _check(attributes: Mapping[str, Tensor], rows: int) -> None:
    for name, values in attributes.items():
        if values.shape != (rows,) or values.is_floating_point() or bool((values < -1).any()):
            raise ValueError(
                f"An attribute has one whole number per row, from 0, or -1 for none; {name!r} has shape "
                f"{tuple(values.shape)} and dtype {values.dtype} for {rows} rows."
            )
