"""Is a dictionary wired up as it was trained? What else it may have meant is tried on the same tokens.

A foreign dictionary fits a model only at its site, in its units, with its biases, its thresholds and its precision,
and files do not tell all of them. Nothing fails where one is wrong: features fire, on something else. Here one thing at
a time is changed, and a change is taken for a mend where the dictionary then rebuilds clearly more at no higher cost.
"""

from dataclasses import dataclass, replace

import pandas as pd
import torch

from workbench.activations.sources import Source
from workbench.dictionaries import Dictionary
from workbench.evaluation.losses import Loss
from workbench.evaluation.wiring import ALONE, BIAS, COLUMNS, INPUTS, LESS, ORDER, PLUS, Bench, Wiring
from workbench.features.feature import DENSE
from workbench.models import TransformerBridge, fingerprint

CLEARLY = 0.7
"""What is left of the variance, and of its product with L0, where one wiring is clearly better than another."""

ROUNDS = 3
"""How many things may be wrong at once."""


@dataclass(frozen=True)
class Alternative:
    """A wiring that was tried."""

    change: str
    """What it changes: "site", "inputs", "decoder", "threshold", "dtype" or "first token"; "" for what was given."""

    setting: str
    """To what."""

    fvu: float
    """Fraction of the variance of the rebuilt site left unexplained; infinite where numbers overflow."""

    l0: float
    """Mean number of features active on a token."""

    round: int
    """0 changes what was given, 1 the best of round 0."""

    better: bool
    """Whether it passes for a mend."""


@dataclass(frozen=True)
class Audit:
    """One page on a dictionary in a model."""

    name: str
    """Which dictionary, and where it says that it belongs."""

    good: bool
    """Whether nothing was found that mends it, and it leaves less than random directions do."""

    findings: tuple[str, ...]
    """What is wrong, and what mends it, in sentences; or that nothing is."""

    given: Alternative
    """The dictionary as it is."""

    mended: Alternative
    """The best that was found; what was given, where no other is clearly better."""

    wiring: Wiring
    """That of ``mended``."""

    random: Alternative
    """As many random directions, as many of them active."""

    losses: dict[str, Loss]
    """By what is put in the place of activations: "model" for nothing, "given", "mended", "mean" and "zero"."""

    dead: float
    """Share of features that are never active, as mended; on few tokens, rare features are part of it."""

    dense: float
    """Share of features that are active on a tenth of the tokens or more, as mended."""

    tokens: int
    """On how many tokens all this was compared."""

    alternatives: tuple[Alternative, ...]
    """All that was tried."""

    def to_frame(self) -> pd.DataFrame:
        """Return one row per alternative, in the order in which they were tried."""
        return pd.DataFrame(self.alternatives)

    def __repr__(self) -> str:
        """Return the page."""
        lines = [f"{self.name}: {'good' if self.good else 'not good'}", *(f"- {said}" for said in self.findings), ""]
        lines.append(f"{'':8}{'FVU':>8}{'L0':>8}{'CE':>8}{'KL':>8}")
        scores = {"given": self.given, "mended": self.mended, "random": self.random}
        for name in dict.fromkeys([*scores, *self.losses]):
            left = f"{scores[name].fvu:8.3f}{scores[name].l0:8.1f}" if name in scores else " " * 16
            right = f"{self.losses[name].ce:8.3f}{self.losses[name].kl:8.3f}" if name in self.losses else ""
            lines.append(f"{name:8}{left}{right}")
        lines += [
            "",
            f"{self.dead:.1%} of the features are dead on these {self.tokens} tokens, {self.dense:.1%} dense.",
        ]
        return "\n".join(lines)


def audit(dictionary: Dictionary, model: TransformerBridge, text: Source, *, keep_bos: bool = False) -> Audit:
    """Try ``dictionary`` in ``model`` in every wiring that files are often wrong about, and say which is right.

    Tried are every site of its width, units and centring of the inputs, the decoder's bias and the order of its rows,
    thresholds, precision, and the first token of a text; one change at a time, and from the best of them again. A
    dictionary that names no site is tried in all units at each. A change mends it where it then leaves at most 0.7 of
    the variance that it left, and the product with L0 falls as much; or it left more than half of all variance,
    when cost does not count; or it leaves no more with half as many features active. This rule is ours.

    Args:
        dictionary: One of one site, or a transcoder of two.
        model: The model that it is for.
        text: A thousand tokens or more of what it was trained on; as for ``ActivationStore.collect``.
        keep_bos: Whether the first token of a text counts, on which most dictionaries were not trained.
    """
    bench = Bench(dictionary, model, text)
    read, write = (next(iter(sites), None) for sites in (dictionary.sites_in, dictionary.sites_out))
    start = now = Wiring(read, write, dtype=bench.dtype, first=keep_bos)
    findings = _faults(bench, now)
    given = best = Alternative("", "", *bench.measure(now), 0, False)
    tried = [given]
    for number in range(ROUNDS):
        mends = []
        for change, wiring in bench.changes(now):
            found = Alternative(change, _setting(change, wiring), *bench.measure(wiring), number, False)
            found = replace(found, better=_better(found, best))
            tried.append(found)
            if found.better:
                mends.append((found, wiring))
        if not mends:
            break
        found, wiring = min(mends, key=lambda mend: mend[0].fvu)
        findings.append(_sentence(found, best, now, wiring, bench))
        best, now = found, wiring
    random = Alternative("", "random directions", *bench.random(now, best.l0), 0, False)
    if not best.fvu < min(random.fvu, 1.0):
        findings.append(
            f"At its best it leaves {best.fvu:.3g} of the variance, where as many random directions leave "
            f"{random.fvu:.3g} with as many active: nothing that was tried makes it a dictionary of this model. Give "
            "the model that it was trained on, or load it again."
        )
    good = not findings
    if good:
        findings.append(
            f"As far as can be seen it is wired as it was trained: it leaves {best.fvu:.3g} of the variance at "
            f"'{write}' with {best.l0:.3g} features active, and no change makes it clearly better."
        )
    active = (bench.run(now)[1] != 0).float().mean(0) if bench.fits(now) else torch.zeros(dictionary.n_features)
    wirings = {"given": start} if now == start else {"given": start, "mended": now}
    losses = bench.losses(wirings, now)
    return Audit(
        f"{type(dictionary).__name__} of {dictionary.n_features} features, {_places(start) or 'at no named site'}",
        good,
        tuple(findings),
        given,
        best,
        now,
        random,
        losses if now != start or not losses else losses | {"mended": losses["given"]},
        float((active == 0).float().mean()),
        float((active >= DENSE).float().mean()),
        int((~bench.first).sum()) + (int(bench.first.sum()) if now.first else 0),
        tuple(tried),
    )


def _faults(bench: Bench, now: Wiring) -> list[str]:
    """Return what can be said without trying."""
    found = []
    trained_on, this = bench.dictionary.provenance.get("model"), fingerprint(bench.model)
    if trained_on not in (None, this):
        found.append(f"It was trained on another model, {trained_on}, and this one is {this}: load that one.")
    for site in dict.fromkeys(site for site in (now.read, now.write) if site is not None):
        if site not in bench.acts:
            found.append(f"This model has no '{site}' of its width: it belongs to another model or to another site.")
    state = bench.dictionary.state_dict()
    if spoilt := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        found.append(
            f"{', '.join(spoilt)}: NaN or infinity, as too large numbers become in float16. Load the original."
        )
    return found


def _better(found: Alternative, than: Alternative) -> bool:
    if found.change == "first token" and found.setting == "kept":
        return False  # other activations: if the first is long, its share of the variance hides that of the rest
    if not (found.fvu < 1 and found.l0 >= 1):
        return False
    cheaper = found.fvu * found.l0 <= CLEARLY * than.fvu * than.l0
    clearly = found.fvu <= CLEARLY * than.fvu and (cheaper or than.fvu > 0.5)
    return clearly or (found.fvu <= than.fvu and found.l0 <= 0.5 * than.l0)


def _places(wiring: Wiring) -> str:
    if wiring.read == wiring.write:
        return f"at '{wiring.read}'" if wiring.read else ""
    return f"from '{wiring.read}' to '{wiring.write}'"


def _setting(change: str, wiring: Wiring) -> str:
    if change == "site":
        return _places(wiring) + ("" if wiring.inputs == "as they are" else f", inputs {wiring.inputs}")
    named = {"inputs": wiring.inputs, "decoder": wiring.decoder, "dtype": wiring.dtype}
    named |= {"threshold": f"{wiring.cut:.4g}", "first token": "kept" if wiring.first else "left out"}
    return named[change]


def _sentence(found: Alternative, than: Alternative, now: Wiring, wiring: Wiring, bench: Bench) -> str:
    """Return what is wrong, how much better the change makes it, and the setting that mends it."""
    said, told = {
        "site": (
            f"It names no site, and fits best {found.setting}"
            if None in (now.read, now.write)
            else f"It belongs {found.setting}, not {_places(now)}",
            f"set sites_in = (Site.parse('{wiring.read}'),) and sites_out = (Site.parse('{wiring.write}'),)",
        ),
        "inputs": (f"It takes its inputs {found.setting}", _units(wiring, bench)),
        "decoder": {
            BIAS: ("The decoder's bias is lost", "add the mean of what is left over to centre_out"),
            ORDER: ("The rows of W_dec are not in the order of the encoder's", "load both from one file again"),
            COLUMNS: (
                "W_dec was reshaped where it should have been transposed",
                "set W_dec to W_dec.reshape(d, n_features).T",
            ),
        }.get(found.setting, ("", "")),
        "threshold": (
            "Its thresholds are lost, so that most of what is active is noise",
            f"load them again; one for all features, {found.setting} in the units of the codes, does this",
        ),
        "dtype": (
            f"In {now.dtype} its numbers overflow or are rounded away",
            f"use dictionary.to(torch.{wiring.dtype}), of weights that were never in {now.dtype}",
        ),
        "first token": (
            f"The first token of a text, {_length(now, bench):.3g} times as long as others here, is nothing it knows",
            "leave that token out, keep_bos=False",
        ),
    }[found.change]
    so = f"{found.fvu:.3g} of the variance is left with {found.l0:.3g} features active"
    return f"{said}: then {so}, now {than.fvu:.3g} with {than.l0:.3g}. To mend it, {told}."


def _units(wiring: Wiring, bench: Bench) -> str:
    if wiring.inputs in (LESS, PLUS):
        sign = "add decode's bias to" if wiring.inputs == LESS else "take decode's bias from"
        return f"{sign} centre_in (apply_b_dec_to_input={wiring.inputs == LESS})"
    if wiring.inputs in ALONE:
        return "change each activation before encode and undo it after decode, which no setting does"
    assert wiring.read is not None
    sample = bench.at(wiring.read, wiring.first)
    shift, scale = INPUTS[wiring.inputs](sample, sample)
    told = f"divide centre_in and centre_out by {float(scale):.6g} and multiply scale_in and scale_out by it"
    told = "" if scale == 1 else told
    mean = "add the mean activation to centre_in and centre_out" if isinstance(shift, torch.Tensor) else ""
    return ", then ".join(filter(None, [told, mean]))


def _length(wiring: Wiring, bench: Bench) -> float:
    """Return how many times as long the first activations are as the others."""
    if wiring.read not in bench.acts:
        return float("nan")
    lengths = bench.acts[wiring.read].norm(dim=1)
    return float(lengths[bench.first].mean() / lengths[~bench.first].mean())
