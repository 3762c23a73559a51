"""How a dictionary is put to use: at which site, in which units, with which bias, order, thresholds and precision.

What ``audit`` tries. Activations are taken once, at every place of a model, on the same tokens; a wiring then says what
is done to them on the way into a dictionary and out of it, and the dictionary itself is never changed.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.activations.sources import Source, pieces_of
from workbench.dictionaries import Codes, Dictionary, Random
from workbench.dictionaries.dictionary import unexplained
from workbench.dictionaries.fidelity import FORWARD
from workbench.evaluation.losses import Loss, losses
from workbench.models import Context, Edit, Site, Stream, TransformerBridge, record
from workbench.models.sites import hook_point

TOKENS, ROWS, FEW = 2048, 1024, 256
"""Tokens of a text that are read; of these, those whose activations are held, from all sites at once; and of these,
those that random directions rebuild."""

STREAMS = tuple(stream for stream in get_args(Stream) if stream not in ("pattern", "ln1_scale", "ln2_scale"))

LESS, PLUS = "less the decoder's bias", "plus the decoder's bias"
LENGTH, VARIANCE = "each of length 1", "each of mean 0 and variance 1"
BIAS, ORDER, COLUMNS = "bias fitted", "rows in another order", "laid out by columns"

Units = Callable[[Tensor, Tensor], tuple[Tensor | float, Tensor | float]]

# What is taken from activations, and what they are then multiplied by: from a sample of them, or each from itself.
INPUTS: dict[str, Units] = {
    "as they are": lambda sample, x: (0.0, 1.0),
    "less their mean": lambda sample, x: (sample.mean(0), 1.0),
    LESS: lambda sample, x: (0.0, 1.0),
    PLUS: lambda sample, x: (0.0, 1.0),
    "of mean length sqrt(d)": lambda sample, x: (0.0, x.shape[1] ** 0.5 / sample.norm(dim=1).mean()),
    "of mean length 1": lambda sample, x: (0.0, 1 / sample.norm(dim=1).mean()),
    "less their mean, of mean square 1": lambda sample, x: (
        sample.mean(0),
        (sample - sample.mean(0)).square().mean().rsqrt(),
    ),
    LENGTH: lambda sample, x: (0.0, 1 / x.norm(dim=1, keepdim=True)),
    VARIANCE: lambda sample, x: (x.mean(1, keepdim=True), 1 / x.std(1, keepdim=True, correction=0)),
}
DECODERS = ("as it is", BIAS, ORDER, COLUMNS)
DTYPES = ("float32", "bfloat16", "float16")
ALONE = (LESS, PLUS, LENGTH, VARIANCE)
"""Of ``INPUTS``, what means nothing where another site is rebuilt than is read."""


@dataclass(frozen=True)
class Wiring:
    """How a dictionary is put to use."""

    read: Site | None
    """The site that it reads; None where its files name none."""

    write: Site | None
    """The site that it rebuilds."""

    inputs: str = "as they are"
    """What activations are before it reads them, which is undone behind it: one of ``INPUTS``."""

    decoder: str = "as it is"
    """What its decoder is: one of ``DECODERS``."""

    cut: float = 0.0
    """Codes up to this one are left out."""

    dtype: str = "float32"
    """What it computes in."""

    first: bool = False
    """Whether the first token of a text counts."""


Wired = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From activations [row, d_in] to reconstructions [row, d_out] and dense codes [row, feature]."""


class Bench:
    """The activations of a text wherever a dictionary may belong in a model, and the dictionary in any wiring.

    Args:
        dictionary: One of one site, or a transcoder of two.
        model: The model.
        text: As for ``ActivationStore.collect``.
    """

    def __init__(self, dictionary: Dictionary, model: TransformerBridge, text: Source) -> None:
        if max(len(dictionary.shape_in), len(dictionary.shape_out)) > 1:
            raise ValueError(f"An audit is of a dictionary that reads one site and rebuilds one, got {dictionary!r}.")
        self.dictionary, self.model = dictionary, model
        self.dtype = str(dictionary.W_dec.dtype).removeprefix("torch.")
        self.copies: dict[str, Dictionary] = {}
        self.tokens, self.mask = _texts(model, text)
        own = {*dictionary.sites_in, *dictionary.sites_out}
        widths = _widths(model, own)
        if not (wanted := {dictionary.d_in, dictionary.d_out}) <= set(widths.values()):
            raise ValueError(
                f"This dictionary reads width {dictionary.d_in} and rebuilds width {dictionary.d_out}, and the sites "
                f"of this model have the widths {', '.join(map(str, sorted(set(widths.values()))))}; give the model "
                "that it was trained on."
            )
        place = torch.arange(self.tokens.shape[1]).expand_as(self.tokens)[self.mask]
        kept = torch.linspace(0, len(place) - 1, min(ROWS, len(place))).long()
        self.first: Bool[Tensor, " row"] = place[kept] == 0
        if int((~self.first).sum()) < 64:
            raise ValueError(
                f"The text has {int((~self.first).sum())} tokens behind the first of each document; an audit takes 64 "
                "at the least, and a thousand to say anything about rare features."
            )
        sites = [site for site, width in widths.items() if width in wanted]
        # Named sites first, so that of equal places the named one counts.
        sites.sort(key=lambda site: (site not in own, site))
        parts = [(record(model, tokens, sites), mask) for tokens, mask in self._batches()]
        self.acts: dict[Site, Float[Tensor, "row _d"]] = {
            site: torch.cat([acts[site].flatten(2)[mask.to(acts[site].device)].float().cpu() for acts, mask in parts])[
                kept
            ]
            for site in sites
        }

    def at(self, site: Site, first: bool) -> Float[Tensor, "row d"]:
        """Return the activations that count."""
        return self.acts[site] if first else self.acts[site][~self.first]

    def fits(self, wiring: Wiring) -> bool:
        """Return whether the model has the sites of ``wiring``."""
        return wiring.read in self.acts and wiring.write in self.acts

    def changes(self, now: Wiring) -> Iterator[tuple[str, Wiring]]:
        """Yield the wirings that differ from ``now`` in one thing, and in what."""
        alone = self.dictionary.autoencodes
        # Without a site there is nothing to compare units at, so these are tried at each.
        units = INPUTS if None in (now.read, now.write) else (now.inputs,)
        for site, inputs in ((site, inputs) for site in self.acts for inputs in units):
            there = replace(now, inputs=inputs)
            read, write = (self.acts[site].shape[1] == d for d in (self.dictionary.d_in, self.dictionary.d_out))
            if alone and site != now.read:
                yield "site", replace(there, read=site, write=site)
            if not alone and read and site != now.read:
                yield "site", replace(there, read=site)
            if not alone and write and site != now.write:
                yield "site", replace(there, write=site)
        if not self.fits(now):
            return
        for inputs in INPUTS:
            if inputs != now.inputs and (alone or inputs not in ALONE):
                yield "inputs", replace(now, inputs=inputs)
        for decoder in DECODERS:
            # Rows have an order to be wrong about where the encoder has its own.
            if decoder != now.decoder and (decoder in DECODERS[:2] or hasattr(self.dictionary, "b_enc")):
                yield "decoder", replace(now, decoder=decoder)
        values = self.run(now)[1].abs()
        values = values[values > now.cut].sort().values
        for share in (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32) if len(values) else ():
            yield "threshold", replace(now, cut=float(values[int((1 - share) * (len(values) - 1))]))
        for dtype in DTYPES:
            if dtype != now.dtype:
                yield "dtype", replace(now, dtype=dtype)
        yield "first token", replace(now, first=not now.first)

    def measure(self, wiring: Wiring) -> tuple[float, float]:
        """Return the fraction of variance unexplained in ``wiring``, infinite where numbers overflow, and L0."""
        if not self.fits(wiring):
            return float("inf"), 0.0
        assert wiring.write is not None
        y = self.at(wiring.write, wiring.first).double()
        rebuilt, codes = self.run(wiring)
        fvu = float(unexplained(y - rebuilt.double(), y))
        return fvu if fvu < float("inf") else float("inf"), float((codes != 0).sum(1).float().mean())

    def run(self, wiring: Wiring) -> tuple[Float[Tensor, "row d_out"], Float[Tensor, "row feature"]]:
        """Return reconstructions, NaN where numbers overflow, and codes of the activations that count."""
        assert wiring.read is not None
        return self.wired(wiring)(self.at(wiring.read, wiring.first))

    @torch.no_grad()
    def wired(self, wiring: Wiring) -> Wired:
        """Return the dictionary in ``wiring``, whose model has its sites."""
        assert wiring.read is not None
        assert wiring.write is not None
        x, y = self.at(wiring.read, wiring.first), self.at(wiring.write, wiring.first)
        if wiring.dtype not in self.copies:
            self.copies[wiring.dtype] = deepcopy(self.dictionary).to(getattr(torch, wiring.dtype))
        dictionary = self.copies[wiring.dtype]
        sign = {LESS: -1.0, PLUS: 1.0}.get(wiring.inputs, 0.0)
        bias = sign * _bias(dictionary) if sign else 0.0
        units = INPUTS[wiring.inputs]

        @torch.no_grad()
        def call(acts: Tensor) -> tuple[Tensor, Tensor]:
            shift, scale = units(x, acts)
            inputs = (acts - shift) * scale + bias
            try:
                codes = dictionary.encode(inputs)
                codes = replace(codes, values=codes.values * (codes.values.abs() > wiring.cut))
                rebuilt = (dictionary.decode(codes) + dictionary.skip(inputs.to(dictionary.W_dec))).float().cpu()
            except (ValueError, RuntimeError):  # what is beyond the dtype, or a product that is not made for it
                return acts.new_full((len(acts), y.shape[1]), torch.nan), acts.new_zeros(
                    len(acts), dictionary.n_features
                )
            if not dictionary.autoencodes:
                shift, scale = units(y, y)
            return rebuilt / scale + shift, codes.dense().float().cpu()

        if wiring.decoder == BIAS:
            left = (y - call(x)[0]).mean(0)

            def biased(acts: Tensor) -> tuple[Tensor, Tensor]:
                rebuilt, codes = call(acts)
                return rebuilt + left, codes

            return biased
        if wiring.decoder in (ORDER, COLUMNS):
            codes, W_dec = call(x)[1], dictionary.W_dec.detach()
            dictionary = deepcopy(dictionary)
            dictionary.W_dec.data = (
                W_dec[_order(dictionary, codes, y)]
                if wiring.decoder == ORDER
                else W_dec.reshape(W_dec.shape[1], -1).T.contiguous()
            )
        return call

    @torch.no_grad()
    def random(self, wiring: Wiring, l0: float) -> tuple[float, float]:
        """Return fraction and L0 of as many random directions, with ``l0`` active, chosen for what is rebuilt."""
        if wiring.write not in self.acts:
            return float("inf"), 0.0
        y, n = self.at(wiring.write, wiring.first), self.dictionary.n_features
        control = Random(y.shape[1], n, k=min(max(1, round(l0)), n, y.shape[1]))
        control.initialise(y)
        return float(unexplained(y[:FEW] - control(y[:FEW]), y[:FEW])), float(control.k)

    @torch.no_grad()
    def losses(self, wirings: Mapping[str, Wiring], at: Wiring) -> dict[str, Loss]:
        """Return what the model loses by each wiring, and by the mean and by zero where ``at`` writes."""
        if not self.fits(at):
            return {}
        assert at.write is not None
        mean = self.at(at.write, at.first).mean(0)
        here = replace(at, read=at.write)
        put: dict[str, tuple[Wiring, Wired | None]] = {
            name: (wiring, self.wired(wiring) if self.measure(wiring)[0] < float("inf") else None)
            for name, wiring in wirings.items()
        }
        put |= {"mean": (here, lambda x: (mean.expand_as(x), x)), "zero": (here, lambda x: (torch.zeros_like(x), x))}
        texts = ((tokens, mask, _counted(mask, at.first)) for tokens, mask in self._batches())
        return losses(
            self.model,
            texts,
            {
                name: None if wired is None else lambda where, w=wiring, f=wired: _edits(w, f, where)
                for name, (wiring, wired) in put.items()
            },
        )

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        size = max(1, FORWARD // self.tokens.shape[1])
        return zip(self.tokens.split(size), self.mask.split(size), strict=True)


def _counted(mask: Tensor, first: bool) -> Tensor:
    """Return the tokens that count: all that are no padding, or all but the first of each text."""
    where = mask.clone()
    where[:, 0] &= first
    return where


def _edits(wiring: Wiring, wired: Wired, where: Tensor) -> dict[Site, Edit]:
    """Return the edits that put what ``wired`` makes of one site in the place of another, at the chosen tokens."""
    assert wiring.read is not None
    assert wiring.write is not None
    held: list[Tensor] = []

    def reading(acts: Tensor, context: Context) -> Tensor:
        held[:] = [acts]
        return acts

    def writing(acts: Tensor, context: Context) -> Tensor:
        x = held.pop() if held else acts
        chosen = where.to(acts.device)
        acts[chosen] = wired(x.flatten(2)[chosen].float().cpu())[0].to(acts).view_as(acts[chosen])
        return acts

    return {wiring.write: writing} if wiring.read == wiring.write else {wiring.read: reading, wiring.write: writing}


def _order(dictionary: Any, codes: Tensor, y: Tensor) -> Int[Tensor, " feature"]:
    """Return, for each feature, the row of ``W_dec`` that is likest to what its codes go with.

    That is the direction by which ridge regression rebuilds ``y``, and beside it the one that an autoencoder reads,
    near to which it writes. A silent feature keeps its row.
    """
    z, v = codes - codes.mean(0), y - y.mean(0)
    gram = z @ z.T  # of rows: there may be more features than those
    ridge = 0.01 * gram.diagonal().mean() * torch.eye(len(gram))
    likely = F.normalize(z.T @ torch.linalg.solve(gram + ridge, v), dim=1)
    if dictionary.autoencodes:
        likely = likely + F.normalize(dictionary.W_enc.float().cpu(), dim=1)
    rows = F.normalize(dictionary.W_dec.float().cpu(), dim=1)
    return torch.where(codes.any(0), (likely @ rows.T).argmax(1), torch.arange(len(rows))).to(dictionary.W_dec.device)


def _bias(dictionary: Dictionary) -> Float[Tensor, " d_out"]:
    """Return what is rebuilt of no features."""
    nothing = dictionary.W_dec.detach().new_zeros(1, 1)
    return dictionary.decode(Codes(nothing, nothing.long(), dictionary.n_features))[0].float().cpu()


def _texts(model: TransformerBridge, text: Source) -> tuple[Tensor, Tensor]:
    """Return the first tokens of a text, [doc, pos], and where they are not padding."""
    found: list[Tensor] = []
    for piece in pieces_of(model, text):
        found.append(piece.tokens[: TOKENS - sum(map(len, found))].long())
        if sum(map(len, found)) >= TOKENS:
            break
    if not found:
        raise ValueError("The text is empty; an audit takes a thousand tokens or more.")
    lengths = torch.tensor([len(tokens) for tokens in found])
    tokens = torch.nn.utils.rnn.pad_sequence(found, batch_first=True)
    return tokens, torch.arange(tokens.shape[1]) < lengths[:, None]


def _widths(model: TransformerBridge, named: set[Site]) -> dict[Site, int]:
    """Return every place of a model and its width: what leaves a block also enters the next, and counts once."""
    every = {Site(layer, stream) for layer in range(model.cfg.n_layers) for stream in STREAMS}
    every = {site for site in every if not (site.stream == "resid_pre" and site.layer)} | named
    found = {}
    for site in sorted(every):
        try:
            hook_point(model, site)
            found |= record(model, torch.zeros(1, 2, dtype=torch.long), [site])
        except ValueError:  # this model has no such place, or never computes it
            continue
    return {site: acts.flatten(2).shape[2] for site, acts in found.items()}
