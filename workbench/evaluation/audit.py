"""Is a dictionary wired up as it was trained? What else it may have meant is tried on the same tokens.

A foreign dictionary fits a model only at its site, in its units, with its biases, its thresholds and its precision,
and files do not tell all of them. Nothing fails where one is wrong: features fire, on something else. Here one thing at
a time is changed, and a change is taken for a mend where the dictionary then rebuilds clearly more at no higher cost.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, get_args

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.activations.sources import Source, pieces_of
from workbench.dictionaries import Codes, Dictionary, Random
from workbench.dictionaries.dictionary import unexplained
from workbench.models import Site, Stream, TransformerBridge, edited, fingerprint, record

TOKENS = 2048
"""Of the text as many are looked at, so that all sites of a model fit in memory."""

ROWS = 1024
"""Of these, as many on which alternatives are compared."""

DENSE = 0.1
"""Share of tokens on which a feature is active that is called dense."""

SOME = 256
"""Of these, as many that random directions rebuild."""

ROUNDS = 3
"""How many things may be wrong at once."""

STREAMS = tuple(stream for stream in get_args(Stream) if stream not in ("pattern", "ln1_scale", "ln2_scale"))


LESS, PLUS = "less the decoder's bias", "plus the decoder's bias"


def _as_they_are(sample: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_zeros(()), x.new_ones(())


# What is taken from activations, and what they are then multiplied by, [d] or [row, 1]: of a sample, or of each row.
INPUTS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "as they are": _as_they_are,
    "less their mean": lambda sample, x: (sample.mean(0), x.new_ones(())),
    LESS: _as_they_are,
    PLUS: _as_they_are,
    "of mean length sqrt(d)": lambda sample, x: (x.new_zeros(()), x.shape[1] ** 0.5 / sample.norm(dim=1).mean()),
    "of mean length 1": lambda sample, x: (x.new_zeros(()), 1 / sample.norm(dim=1).mean()),
    "less their mean, of mean square 1": lambda sample, x: (
        sample.mean(0),
        (sample - sample.mean(0)).square().mean().rsqrt(),
    ),
    "each of length 1": lambda sample, x: (x.new_zeros(()), 1 / x.norm(dim=1, keepdim=True)),
    "each of mean 0 and variance 1": lambda sample, x: (
        x.mean(1, keepdim=True),
        1 / x.std(1, keepdim=True, correction=0),
    ),
}
ALONE = (LESS, PLUS, "each of length 1", "each of mean 0 and variance 1")
"""What means nothing where another site is rebuilt than is read."""

# W_dec [feature, d] as it was meant, by the codes [row, feature] and activations [row, d]; None for what is no order.
DECODERS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "as it is": lambda W_dec, codes, y: W_dec,
    "rows in another order": lambda W_dec, codes, y: W_dec[_order(W_dec, codes, y)],
    "laid out by columns": lambda W_dec, codes, y: W_dec.reshape(W_dec.shape[1], -1).T.contiguous(),
    "bias fitted": lambda W_dec, codes, y: W_dec,
}


@dataclass(frozen=True)
class Wiring:
    """How a dictionary is put to use."""

    read: Site | None = None
    """The site that it reads; None where its files name none."""

    write: Site | None = None
    """The site that it rebuilds."""

    inputs: str = "as they are"
    """What is done to activations before, and undone after; a key of ``INPUTS``."""

    decoder: str = "as it is"
    """A key of ``DECODERS``."""

    cut: float = 0.0
    """Codes up to this one are left out."""

    dtype: str = "float32"
    """In which the dictionary computes."""

    first: bool = False
    """Whether the first token of a text is among the activations."""


@dataclass(frozen=True)
class Alternative:
    """One wiring, and what a dictionary does in it."""

    change: str
    """What differs from the wiring that was best so far; "" where nothing does."""

    setting: str
    """What it was changed to."""

    fvu: float
    """Fraction of variance unexplained, of the activations at the site; infinite where numbers overflow."""

    l0: float
    """Mean number of features active on a token."""

    round: int
    """0 for the wiring that was given and the first changes to it; 1 for changes to what the best of them made."""

    better: bool
    """Whether it passes for a mend."""


@dataclass(frozen=True)
class Loss:
    """What the model loses by something in the place of activations."""

    ce: float
    """Cross-entropy of the text's next tokens, in nats."""

    kl: float
    """KL(model ‖ model with it) of the next token, in nats: means over the tokens where it was put in."""


@dataclass(frozen=True)
class Audit:
    """One page on a dictionary in a model."""

    good: bool
    """Whether nothing was found that mends it, and it is better than random directions."""

    findings: tuple[str, ...]
    """What is wrong, and what mends it, in sentences; or that all is well."""

    given: Alternative
    """As the dictionary is."""

    mended: Alternative
    """In the best wiring found: as given where there was none better."""

    wiring: Wiring
    """That wiring."""

    random: Alternative
    """As many random directions with as many of them active at that site."""

    losses: dict[str, Loss]
    """By what is put in: "model" (nothing), "given", "mended", "mean" and "zero"; of what overflows, NaN."""

    dead: float
    """Share of features never active, as mended."""

    dense: float
    """Share of features active on more than a tenth of the tokens, as mended."""

    tokens: int
    """On how many tokens alternatives were compared; few leave rare features dead."""

    alternatives: tuple[Alternative, ...]
    """All that were tried."""

    name: str = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per alternative, in the order in which they were tried."""
        return pd.DataFrame(self.alternatives)

    def __str__(self) -> str:
        lines = [f"{self.name}: {'good' if self.good else 'not good'}", *(f"- {said}" for said in self.findings), ""]
        lines.append(f"{'':10}{'FVU':>8}{'L0':>8}{'CE':>8}{'KL':>8}")
        scores = {"given": self.given, "mended": self.mended, "random": self.random}
        for name in dict.fromkeys([*scores, *self.losses]):
            left = f"{scores[name].fvu:8.3f}{scores[name].l0:8.1f}" if name in scores else " " * 16
            right = f"{self.losses[name].ce:8.3f}{self.losses[name].kl:8.3f}" if name in self.losses else ""
            lines.append(f"{name:10}{left}{right}")
        lines += [
            "",
            f"{self.dead:.1%} of the features are dead on these {self.tokens} tokens, {self.dense:.1%} dense.",
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"


def audit(dictionary: Dictionary, model: TransformerBridge, text: Source, *, keep_bos: bool = False) -> Audit:
    """Try ``dictionary`` in ``model`` in every wiring that files are often wrong about, and say which is right.

    Tried are every site of its width, units and centring of the inputs, the decoder's bias and the order of its rows,
    thresholds, precision, and the first token of a text. A dictionary that names no site is tried in all units at each
    site. It is better in one if it leaves 0.7 of the variance that it left, at a cost that has not grown as much, or
    leaves no more with half the features; where it left more than half of it, the cost does not count. This rule
    is ours.

    Args:
        dictionary: One of one site, or a transcoder of two.
        model: The model that it is for.
        text: A thousand tokens or more of what it was trained on; as for ``ActivationStore.collect``.
        keep_bos: Whether the first token of a text counts, which most dictionaries were not trained on.
    """
    bench = _Bench(dictionary, model, text)
    read, write = (next(iter(sites), None) for sites in (dictionary.sites_in, dictionary.sites_out))
    now = Wiring(read, write, dtype=bench.dtype, first=keep_bos)
    findings = bench.faults(now)
    given = best = bench.measure(now)
    tried = [given]
    for number in range(ROUNDS):
        better = []
        for change, wiring in bench.changes(now):
            found = replace(bench.measure(wiring), change=change, setting=_setting(change, wiring), round=number)
            found = replace(found, better=_better(found, best))
            tried.append(found)
            if found.better:
                better.append((found, wiring))
        if not better:
            break
        found, wiring = min(better, key=lambda pair: pair[0].fvu)
        findings.append(_sentence(found, best, now, wiring, bench))
        best, now = found, wiring
    random = bench.random(now, best)
    if not best.fvu < min(random.fvu, 1.0):
        findings.append(
            f"At its best it leaves {best.fvu:.3g} of the variance, and {dictionary.n_features} random directions "
            f"leave {random.fvu:.3g} with as many active: nothing that was tried makes it a dictionary of this model. "
            "Give the model that it was trained on, or load it again."
        )
    good = not findings
    if good:
        findings.append(
            f"It is wired as it was trained, as far as can be seen: it leaves {best.fvu:.3g} of the variance at "
            f"'{now.write}' with {best.l0:.3g} features active, and no change makes it leave clearly less."
        )
    active = bench.active(now)
    return Audit(
        good,
        tuple(findings),
        given,
        best,
        now,
        random,
        bench.losses({"given": Wiring(read, write, dtype=bench.dtype, first=keep_bos), "mended": now}, keep_bos),
        float((active == 0).float().mean()),
        float((active > DENSE).float().mean()),
        len(bench.rows(now.first)),
        tuple(tried),
        repr(dictionary).partition("(")[0] + f" of {dictionary.n_features} features at '{write or 'no named site'}'",
    )


class _Bench:
    """The activations of a text at every site that a dictionary might mean, and the dictionary in any wiring."""

    def __init__(self, dictionary: Dictionary, model: TransformerBridge, text: Source) -> None:
        if max(len(dictionary.shape_in), len(dictionary.shape_out)) > 1:
            raise ValueError(f"An audit is of a dictionary that reads one site and rebuilds one, got {dictionary!r}.")
        self.dictionary, self.model = dictionary, model
        self.dtype = _name(dictionary.W_dec.dtype)
        self.separate = dictionary.autoencodes is False
        self.texts = _texts(model, text)
        self.copies: dict[str, Dictionary] = {}
        widths = dict(_widths(model))
        wanted = {dictionary.d_in, dictionary.d_out}
        sites = [site for site, width in widths.items() if width in wanted]
        if not {dictionary.d_in, dictionary.d_out} <= set(widths.values()):
            raise ValueError(
                f"This dictionary reads width {dictionary.d_in} and rebuilds width {dictionary.d_out}, and the sites "
                f"of this model have widths {', '.join(map(str, sorted(set(widths.values()))))}; it is of another one."
            )
        every = torch.cat([torch.arange(len(tokens)) for tokens in self.texts])
        kept = torch.linspace(0, len(every) - 1, min(ROWS, len(every))).long()
        self.first = every[kept] == 0
        found: dict[Site, list[Tensor]] = {site: [] for site in sites}
        for tokens in self.texts:
            for site, acts in record(model, tokens[None], sites).items():
                found[site].append(acts[0].flatten(1))
        self.acts = {site: torch.cat(parts)[kept].float() for site, parts in found.items()}
        if len(self.rows(False)) < 64:
            raise ValueError(
                f"The text has {len(self.rows(False))} tokens behind the first of each document; an audit takes 64 at "
                "the least, and a thousand to say anything about rare features."
            )

    def rows(self, first: bool) -> Tensor:
        """Return which of the activations count."""
        return torch.arange(len(self.first)) if first else (~self.first).nonzero()[:, 0]

    def at(self, site: Site, first: bool) -> Tensor:
        return self.acts[site][self.rows(first)]

    def faults(self, now: Wiring) -> list[str]:
        """Return what can be said without trying."""
        found = []
        trained_on, this = self.dictionary.provenance.get("model"), fingerprint(self.model)
        if trained_on not in (None, this):
            found.append(f"It was trained on the model {trained_on}, and this one is {this}: load that model.")
        for site in dict.fromkeys(filter(None, (now.read, now.write))):
            if site not in self.acts:
                found.append(f"This model has no '{site}' of its width, so it is of another model or another site.")
        if spoilt := [key for key, w in self.dictionary.state_dict().items() if not w.isfinite().all()]:
            found.append(
                f"{', '.join(spoilt)} hold NaN or infinity, lost in a conversion of precision: load the original."
            )
        return found

    def changes(self, now: Wiring) -> Iterator[tuple[str, Wiring]]:
        """Yield every wiring that differs from ``now`` in one thing, and in what."""
        nowhere = now.read not in self.acts or now.write not in self.acts
        for site, acts in self.acts.items():
            for inputs in INPUTS if nowhere and None in (now.read, now.write) else (now.inputs,):
                there = replace(now, inputs=inputs)
                if not self.separate:
                    if site != now.read:
                        yield "site", replace(there, read=site, write=site)
                    continue
                if acts.shape[1] == self.dictionary.d_in and site != now.read:
                    yield "site", replace(there, read=site)
                if acts.shape[1] == self.dictionary.d_out and site != now.write:
                    yield "site", replace(there, write=site)
        if nowhere:
            return
        for inputs in INPUTS:
            if inputs != now.inputs and not (self.separate and inputs in ALONE):
                yield "inputs", replace(now, inputs=inputs)
        for decoder in DECODERS:
            # With an encoder of their own, rows can be in an order that is not the decoder's.
            if decoder != now.decoder and (decoder == "bias fitted" or hasattr(self.dictionary, "W_enc")):
                yield "decoder", replace(now, decoder=decoder)
        _, codes = self.rebuild(now)
        values = codes[codes > now.cut]
        for share in (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32) if len(values) else ():
            yield "threshold", replace(now, cut=float(_quantile(values, 1 - share)))
        for dtype in ("float32", "bfloat16", "float16"):
            if dtype != now.dtype:
                yield "dtype", replace(now, dtype=dtype)
        yield "first token", replace(now, first=not now.first)

    def measure(self, wiring: Wiring) -> Alternative:
        """Return what the dictionary does in ``wiring``."""
        if wiring.read not in self.acts or wiring.write not in self.acts:
            return Alternative("", "", float("inf"), 0.0, 0, False)
        y = self.at(wiring.write, wiring.first).double()
        rebuilt, codes = self.rebuild(wiring)
        fvu = float(unexplained(y - rebuilt.double(), y))
        l0 = float((codes != 0).sum(1).float().mean())
        return Alternative("", "", fvu if fvu == fvu else float("inf"), l0, 0, False)

    def active(self, wiring: Wiring) -> Tensor:
        """Return on which share of tokens each feature is active."""
        if wiring.read not in self.acts or wiring.write not in self.acts:
            return torch.zeros(self.dictionary.n_features)
        return (self.rebuild(wiring)[1] != 0).float().mean(0)

    def rebuild(self, wiring: Wiring) -> tuple[Tensor, Tensor]:
        """Return what is rebuilt of the activations compared on, and the dense codes; NaN where numbers overflow."""
        assert wiring.read is not None
        return self.wired(wiring)(self.at(wiring.read, wiring.first))

    def wired(self, wiring: Wiring) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Return the dictionary in ``wiring``, as a function from activations [row, d_in]."""
        assert wiring.read is not None and wiring.write is not None
        x, y = self.at(wiring.read, wiring.first), self.at(wiring.write, wiring.first)
        dictionary = self._copy(wiring.dtype)
        bias = {LESS: -1.0, PLUS: 1.0}.get(wiring.inputs, 0.0) * (
            _bias(dictionary) if wiring.inputs in (LESS, PLUS) else 0
        )

        def raw(acts: Tensor) -> tuple[Tensor, Tensor]:
            shift, scale = INPUTS[wiring.inputs](x, acts)
            try:
                codes = dictionary.encode((acts - shift) * scale + bias)
                codes = replace(codes, values=codes.values * (codes.values.abs() > wiring.cut))
                rebuilt = (dictionary.decode(codes) + dictionary.skip((acts - shift) * scale + bias)).float().cpu()
            except (ValueError, RuntimeError):  # numbers beyond the dtype, or one that a product is not written for
                return torch.full((len(acts), y.shape[1]), torch.nan), torch.zeros(len(acts), dictionary.n_features)
            if self.separate:
                shift, scale = INPUTS[wiring.inputs](y, y)
            return rebuilt / scale + shift, codes.dense().float().cpu()

        if wiring.decoder == "bias fitted":
            rebuilt, _ = raw(x)
            left = (y - rebuilt).mean(0)
            return lambda acts: (lambda rebuilt, codes: (rebuilt + left, codes))(*raw(acts))
        if wiring.decoder != "as it is":
            _, codes = raw(x)
            dictionary = deepcopy(dictionary)
            dictionary.W_dec.data = DECODERS[wiring.decoder](dictionary.W_dec.data, codes, y)
        return raw

    @torch.no_grad()
    def random(self, wiring: Wiring, best: Alternative) -> Alternative:
        """Return what random directions do with as many of them active, which they may choose of what is rebuilt."""
        if wiring.write not in self.acts:
            return Alternative("", "random directions", float("inf"), 0.0, 0, False)
        y = self.at(wiring.write, wiring.first)
        most = min(self.dictionary.n_features, y.shape[1])
        control = Random(y.shape[1], self.dictionary.n_features, k=min(max(1, round(best.l0)), most))
        control.initialise(y)
        fvu, l0 = unexplained((y - control(y))[:SOME], y[:SOME]), control.encode(y[:SOME]).l0
        return Alternative("", "random directions", float(fvu), float(l0), 0, False)

    @torch.no_grad()
    def losses(self, wirings: dict[str, Wiring], first: bool) -> dict[str, Loss]:
        """Return what the model loses by each wiring, by the mean at the site of the last of them, and by zero."""
        *_, last = wirings.values()
        if last.write not in self.acts:
            return {}
        mean = self.at(last.write, first).mean(0)
        put: dict[str, Any] = {name: None if _lost(w, self) else self.wired(w) for name, w in wirings.items()}
        put |= {"mean": lambda x: (mean.expand(len(x), -1), x), "zero": lambda x: (torch.zeros_like(x), x)}
        sums = dict.fromkeys(["model", *put], torch.zeros(2, dtype=torch.float64))
        count, start = 0, 0 if first else 1
        for tokens in self.texts:
            if len(tokens) - start < 2:
                continue
            true = tokens[start + 1 :].to(next(self.model.parameters()).device)
            clean = self.model(tokens[None])[0, start:-1].float().log_softmax(-1)
            count += len(true)
            for name in sums:
                said = clean
                if name in put:
                    if put[name] is None:
                        sums[name] = sums[name] + torch.nan
                        continue
                    with ExitStack() as stack:
                        wiring = wirings.get(name, last)
                        stack.enter_context(edited(self.model, _edits(wiring, put[name], start)))
                        said = self.model(tokens[None])[0, start:-1].float().log_softmax(-1)
                kl = (clean.exp() * (clean - said)).sum()
                sums[name] = sums[name] + torch.stack([F.nll_loss(said, true, reduction="sum"), kl]).cpu().double()
        return {name: Loss(*(total / count).tolist()) for name, total in sums.items()}

    def _copy(self, dtype: str) -> Dictionary:
        if dtype not in self.copies:
            self.copies[dtype] = deepcopy(self.dictionary).to(getattr(torch, dtype)).requires_grad_(False)
        return self.copies[dtype]


def _better(found: Alternative, than: Alternative) -> bool:
    if found.change == "first token" and found.setting == "kept":
        return False  # other activations: the first is so long that its share of the variance hides that of the rest
    cheaper = found.fvu * found.l0 <= 0.7 * than.fvu * than.l0
    clearly = found.fvu <= 0.7 * min(than.fvu, 1e9) and (cheaper or than.fvu > 0.5)
    return clearly or (found.fvu <= than.fvu and found.l0 <= 0.5 * than.l0)


def _setting(change: str, wiring: Wiring) -> str:
    if change == "site":
        sites = str(wiring.read) if wiring.read == wiring.write else f"{wiring.read} to {wiring.write}"
        return sites if wiring.inputs == "as they are" else f"{sites}, {wiring.inputs}"
    named = {"inputs": wiring.inputs, "decoder": wiring.decoder, "dtype": wiring.dtype}
    named |= {"threshold": f"{wiring.cut:.4g}", "first token": "kept" if wiring.first else "left out"}
    return named[change]


def _sentence(found: Alternative, than: Alternative, now: Wiring, wiring: Wiring, bench: _Bench) -> str:
    """Return what was wrong and what mends it."""
    so = f"{found.fvu:.3g} of the variance is left with {found.l0:.3g} features active"
    before = f"not {than.fvu:.3g} with {than.l0:.3g}"
    if found.change == "site":
        old = f"'{now.read}'" if now.read == now.write else f"'{now.read}' to '{now.write}'"
        said = (
            f"It names no site, and fits best at {found.setting}"
            if None in (now.read, now.write)
            else (f"It belongs at {found.setting}, not at {old}")
        )
        told = f"set sites_in = (Site.parse('{wiring.read}'),) and sites_out = (Site.parse('{wiring.write}'),)"
    elif found.change == "inputs":
        said = f"It takes its inputs {found.setting}"
        if wiring.inputs in (LESS, PLUS):
            applied = "subtract it too" if wiring.inputs == LESS else "subtract it no more"
            told = f"let the encoder {applied} (apply_b_dec_to_input), by centre_in {'+' if wiring.inputs == LESS else '-'}= decode's bias"
        elif wiring.inputs in ALONE:
            told = "no setting does that: change each activation before encode, and undo it after decode"
        else:
            assert wiring.read is not None
            x = bench.at(wiring.read, wiring.first)
            shift, scale = INPUTS[wiring.inputs](x, x)
            told = f"divide centre_in and centre_out by {float(scale):.6g} and multiply scale_in and scale_out by it"
            if shift.ndim:
                told += ", then add the mean activation of each side to centre_in and centre_out"
    elif found.change == "decoder":
        said, told = {
            "rows in another order": (
                "The rows of W_dec are in another order than those of W_enc",
                "load both from one file, or reorder W_dec by what each feature's codes go with",
            ),
            "laid out by columns": (
                "W_dec was reshaped where it should have been transposed",
                "W_dec = W_dec.reshape(d, n_features).T",
            ),
            "bias fitted": ("The decoder's bias is lost", "add the mean of what is left to centre_out"),
        }[found.setting]
    elif found.change == "threshold":
        said = "Its thresholds are lost: most of what is active is noise"
        told = f"load them too; one for all features, of {found.setting} in the units of the codes, gives this"
    elif found.change == "dtype":
        said = f"In {now.dtype} its numbers overflow or are rounded away"
        told = f"dictionary.to(torch.{wiring.dtype}), or load it again if it was rounded on disk"
    else:
        x = bench.at(wiring.read, True).norm(dim=1) if wiring.read else torch.ones(1)
        ratio = float(x[bench.first].mean() / x[~bench.first].mean())
        said = f"It knows nothing of the first token of a text, which is {ratio:.3g} times as long as others here"
        told = "leave that token out (keep_bos=False)"
    return f"{said}: {so}, {before}. To mend it, {told}."


def _order(W_dec: Tensor, codes: Tensor, y: Tensor) -> Tensor:
    """Return, for each feature, the row that lies nearest to what its code goes with; its own if it is silent."""
    with_ = (codes - codes.mean(0)).T @ (y - y.mean(0))
    nearest = (F.normalize(with_, dim=1) @ F.normalize(W_dec.float().cpu(), dim=1).T).argmax(1)
    own = torch.arange(len(W_dec))
    return torch.where(codes.any(0), nearest, own).to(W_dec.device)


def _edits(wiring: Wiring, wired: Callable, start: int) -> dict[Site, Any]:
    """Return the edits that put what ``wired`` makes of one site in the place of another, from a position on."""
    held: list[Tensor] = []

    def reading(acts: Tensor, context: Any) -> Tensor:
        held[:] = [acts]
        return acts

    def writing(acts: Tensor, context: Any) -> Tensor:
        x = (held.pop() if held else acts)[:, start:].flatten(2)
        acts[:, start:] = wired(x[0].float().cpu())[0].to(acts).view_as(acts[:, start:])
        return acts

    assert wiring.read is not None and wiring.write is not None
    return {wiring.write: writing} if wiring.read == wiring.write else {wiring.read: reading, wiring.write: writing}


def _lost(wiring: Wiring, bench: _Bench) -> bool:
    """Return whether there is nothing to put in."""
    return not bench.measure(wiring).fvu < float("inf")


def _bias(dictionary: Dictionary) -> Tensor:
    """Return what is rebuilt of no features."""
    nothing = dictionary.W_dec.new_zeros(1, 1)
    return dictionary.decode(Codes(nothing, nothing.long(), dictionary.n_features))[0].float().cpu()


def _quantile(values: Tensor, share: float) -> Tensor:
    return values.sort().values[int(share * (len(values) - 1))]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _texts(model: TransformerBridge, text: Source) -> list[Tensor]:
    """Return the first pieces of a text that hold ``TOKENS`` tokens."""
    found, held = [], 0
    for piece in pieces_of(model, text):
        found.append(piece.tokens[: TOKENS - held].long())
        held += len(found[-1])
        if held >= TOKENS:
            break
    if not held:
        raise ValueError("The text is empty; an audit takes a thousand tokens or more.")
    return found


def _widths(model: TransformerBridge) -> Iterator[tuple[Site, int]]:
    """Yield every place of a model and its width, each under one name."""
    for layer in range(model.cfg.n_layers):
        for stream in STREAMS:
            if stream == "resid_pre" and layer:  # what left the last block
                continue
            try:
                acts = record(model, torch.zeros(1, 2, dtype=torch.long), [Site(layer, stream)])
            except ValueError:  # this model has no such place, or never computes it
                continue
            yield Site(layer, stream), acts[Site(layer, stream)].flatten(2).shape[2]
