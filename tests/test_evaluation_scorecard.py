"""The scorecard against naive versions of its numbers, and dictionaries whose merits and faults are planted."""

import logging
import math
import random
from dataclasses import replace

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import BOS, D_MODEL, corpus
from test_features import HERE, store_of
from torch import Tensor

from workbench.activations import ActivationStore
from workbench.dictionaries import Codes, Crosscoder, Neurons, Random, TopK, load_dictionary
from workbench.evaluation import METRICS, scorecard
from workbench.evaluation.absorption import absorption, standing_for
from workbench.evaluation.description import STEPS, description_length, gaussian_bits
from workbench.evaluation.intervals import mean_of
from workbench.language import Language
from workbench.language.ceilings import ceilings
from workbench.models import Site, load_model, record

SEED = random.SystemRandom().randrange(2**20)
KINDS = ("", "bird", "fish", "insect", "tree", "herb", "moss")
LARGER = ("", "animal", "plant")
D = 14
CEILINGS = pd.DataFrame(
    {"label": ["larger"] * 2 + ["kind"] * 6, "value": [*LARGER[1:], *KINDS[1:]], "f1": [0.9, 0.8, *[0.6] * 6]}
)


@pytest.fixture(autouse=True)
def _told():
    logging.warning("SEED = %s", SEED)


def known(directions: Tensor, *, k: int, reads: Tensor | None = None, **options) -> TopK:
    """A dictionary of these directions, which reads others where it is told to."""
    dictionary = TopK(directions.shape[1], len(directions), k=k, sites_in=HERE, **options)
    with torch.no_grad():
        dictionary.W_dec.copy_(directions)
        dictionary.W_enc.copy_(directions if reads is None else reads)
    return dictionary


def kingdom(seed: int, n: int = 6000) -> ActivationStore:
    """Axes 0 and 1 are animals and plants, 2 to 7 their kinds, the others by chance; half of the rows has a kind."""
    g = torch.Generator().manual_seed(seed)
    kind = torch.randint(-5, 7, (n,), generator=g).clamp_min(0)
    larger = (kind + 2) // 3
    acts = torch.zeros(n, D)
    for codes, first in ((larger, -1), (kind, 1)):
        held = codes > 0
        acts[held, codes[held] + first] = 1 + torch.rand(int(held.sum()), generator=g)
    acts[:, 8:] = (torch.rand(n, D - 8, generator=g) < 0.15) * (0.5 + torch.rand(n, D - 8, generator=g))
    doc = torch.arange(n) // 10
    labels, names = {"larger": larger, "kind": kind}, {"larger": LARGER, "kind": KINDS}
    return store_of(acts, doc=doc, pos=1 + torch.arange(n) % 10, labels=labels, names=names)


def absorbing() -> TopK:
    """The axes, but that of herbs is half plant, and where it is active that of plants is not."""
    directions = torch.eye(D)
    directions[6] = F.normalize(directions[1] + directions[6], dim=0)
    reads = torch.eye(D)
    reads[1, 6] = -10
    return known(directions, k=8, reads=reads)


def sparse_codes(seed: int, rows: int = 60, k: int = 4, m: int = 9) -> Codes:
    g = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, k, generator=g) * (torch.rand(rows, k, generator=g) < 0.7)
    return Codes(values, torch.stack([torch.randperm(m, generator=g)[:k] for _ in range(rows)]), m)


# --- how many bits ---------------------------------------------------------------------------------------------


def naive_gaussian(x: Tensor, distortion: float) -> float:
    """Reverse water-filling by bisection of the level."""
    power = torch.linalg.svdvals(x - x.mean(0)) ** 2 / len(x)
    low, high = 0.0, float(power.max())
    for _ in range(200):
        level = (low + high) / 2
        low, high = (level, high) if float(power.clamp_max(level).sum()) < distortion else (low, level)
    return float((power / low).log2().clamp_min(0).sum() / 2) if low else math.inf


def naive_sequence(bins: list[int]) -> float:
    """Bits of a sequence, each symbol by its count so far and a half, over the span of bins that occur and zero."""
    kinds = max(*bins, 0) - min(*bins, 0) + 1
    met: dict[int, int] = {}
    bits = 0.0
    for n, one in enumerate(bins):
        bits -= math.log2((met.get(one, 0) + 0.5) / (n + kinds / 2))
        met[one] = met.get(one, 0) + 1
    return bits


def test_a_normal_variable_takes_the_bits_of_its_water_level():
    for seed in range(SEED, SEED + 5):
        x = torch.randn(50, 6, generator=torch.Generator().manual_seed(seed)).double() * torch.tensor(
            [3, 2, 1, 1, 0.5, 0]
        )
        total = float((x - x.mean(0)).square().sum(1).mean())
        for share in (0.001, 0.05, 0.3, 0.9):
            assert gaussian_bits(x, share * total) == pytest.approx(
                naive_gaussian(x, share * total), rel=1e-6, abs=1e-6
            )
        assert gaussian_bits(x, 1.001 * total) == 0
    # Two directions of variance 4 and 1, to an error of a half: a quarter each, log2(16) / 2 + log2(4) / 2 bits.
    corners = torch.tensor([[2.0, 1], [2, -1], [-2, 1], [-2, -1]])
    assert gaussian_bits(corners, 0.5) == pytest.approx(3)


def test_a_description_is_its_codes_and_what_they_leave():
    for seed in range(SEED, SEED + 4):
        codes = sparse_codes(seed)
        g = torch.Generator().manual_seed(seed)
        dictionary = known(F.normalize(torch.randn(9, 5, generator=g), dim=1), k=4)
        y = dictionary.decode(codes).detach() + 0.1 * torch.randn(60, 5, generator=g)
        spread = float(codes.values[codes.values != 0].square().mean().sqrt())
        total = float((y - y.mean(0)).double().square().sum(1).mean())
        found = []
        for width in STEPS:
            bins = (codes.dense() / (width * spread)).round()
            left = y.double() - (bins * width * spread @ dictionary.W_dec.detach()).double()
            coded = sum(naive_sequence([int(one) for one in column]) for column in bins.T) / 60
            enough = float((left - left.mean(0)).square().sum(1).mean()) <= 0.05 * total
            found.append(coded + (0 if enough else naive_gaussian(left, 0.05 * total)))
        got = description_length(dictionary, y, y, codes)
        assert got == pytest.approx(
            next(a for a, b in zip(found, [*found[1:], math.inf], strict=True) if b > a), rel=1e-5
        )


def test_no_features_leave_everything_to_be_sent():
    y = torch.randn(40, 5, generator=torch.Generator().manual_seed(SEED))
    none = Codes(torch.zeros(40, 2), torch.zeros(40, 2, dtype=torch.long), 9)
    dictionary = known(torch.randn(9, 5), k=2)
    total = float((y - y.mean(0)).square().sum(1).mean())
    assert description_length(dictionary, y, y, none) == pytest.approx(gaussian_bits(y, 0.05 * total), rel=1e-5)


# --- what stands for a label, and what takes it over ------------------------------------------------------------


def test_features_of_a_label_are_found_as_by_trying_every_one():
    for seed in range(SEED, SEED + 20):
        codes = sparse_codes(seed, rows=150)
        active = codes.dense() != 0
        noise = torch.rand(150, generator=torch.Generator().manual_seed(seed)) < 0.1
        label = (active[:, 3] | active[:, 7]) ^ noise

        def f1(union: Tensor, label=label) -> float:
            return 2 * float((union & label).sum()) / float(union.sum() + label.sum())

        union, best, n = torch.zeros_like(label), 0.0, 0
        while n < 9 and (now := max(f1(union | active[:, j]) for j in range(9))) >= best + 0.03:
            union |= active[:, max(range(9), key=lambda j: f1(union | active[:, j]))]
            best, n = now, n + 1
        found = standing_for(codes, label)
        assert len(found) == n
        assert f1(active[:, found].any(1)) == pytest.approx(best)


def test_a_label_without_rows_or_features_has_none():
    codes = sparse_codes(SEED)
    assert len(standing_for(codes, torch.zeros(60, dtype=torch.bool))) == 0
    silent = Codes(torch.zeros_like(codes.values), codes.indices, 9)
    assert len(standing_for(silent, torch.ones(60, dtype=torch.bool))) == 0


def test_absorption_is_what_a_count_row_by_row_finds():
    for seed in range(SEED, SEED + 5):
        g = torch.Generator().manual_seed(seed)
        codes = sparse_codes(seed, rows=200)
        W_dec = torch.randn(9, 5, generator=g)
        x = codes.dense() @ W_dec + 0.3 * torch.randn(200, 5, generator=g)
        label = torch.rand(200, generator=g) < 0.5
        kinds = [label & (torch.rand(200, generator=g) < share) for share in (0.3, 0.6)]
        of = torch.tensor([2, 5])
        along = F.normalize(x[label].mean(0) - x[~label].mean(0), dim=0)
        for kind, found in zip(kinds, absorption(codes, x, W_dec, label, kinds, of), strict=True):
            missed = absorbed = 0
            for i in kind.nonzero()[:, 0].tolist():
                z = codes.dense()[i]
                if any(z[j] != 0 for j in of.tolist()):
                    continue
                missed += 1
                there = float((x[i] - x[~label].mean(0)) @ along)
                others = [j for j in range(9) if j not in of and float(F.normalize(W_dec[j], dim=0) @ along) >= 0.025]
                most = max((float(z[j] * (W_dec[j] @ along)) for j in others), default=0.0)
                absorbed += there > 0 and most >= 0.4 * there
            assert (found.rows, found.missed) == (int(kind.sum()), pytest.approx(missed / int(kind.sum())))
            assert found.rate == pytest.approx(absorbed / int(kind.sum()))


# --- the card ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def card():
    """Of the true dictionary, one that absorbs, one that splits birds in two, and random directions."""
    directions = torch.cat([torch.eye(D), torch.eye(D)[2:3]])
    reads = directions.clone()
    reads[2], reads[D] = 0, 0
    for feature, without in ((2, 8), (D, 9)):  # birds that the one is not with, and those that the other is not
        reads[feature, 2], reads[feature, without] = 1, -10
    split = known(directions, k=8, reads=reads)
    store = kingdom(SEED)
    blind = Random(D, 2 * D, k=3, sites_in=HERE, seed=SEED)
    blind.initialise(store.rows(slice(None)).acts)
    of = {"true": known(torch.eye(D), k=8), "absorbing": absorbing(), "split": split, "random": blind}
    return scorecard(of, store, controls={}, draws=3, ceilings=CEILINGS, seed=SEED)


def test_a_perfect_dictionary_has_perfect_scores(card):
    scores = card.scores["true"]
    assert scores["fvu"].value < 1e-9
    assert scores["dead"].value == scores["absorption"].value == 0
    assert scores["splitting"].value == 1
    assert scores["cosine"].value == pytest.approx(0, abs=1e-6)
    assert scores["probe_1"].value > 0.99
    assert scores["l0"].low <= scores["l0"].value <= scores["l0"].high


def test_each_fault_shows_where_it_should(card):
    of = {name: {metric: one.value for metric, one in scores.items()} for name, scores in card.scores.items()}
    assert of["absorbing"]["absorption"] == pytest.approx(1 / 6, abs=0.01)  # of six kinds, one
    assert of["split"]["splitting"] > of["true"]["splitting"]
    assert of["random"]["fvu"] > 0.1
    assert of["random"]["probe_1"] < of["true"]["probe_1"] - 0.2
    assert of["true"]["mdl"] < of["random"]["mdl"]
    herbs = card.absorbed.query("dictionary == 'absorbing' and child == 'herb'").iloc[0]
    assert herbs["missed"] == 1
    assert herbs["rate"] > 0.9
    others = card.absorbed.query("dictionary == 'absorbing' and child != 'herb'")
    assert (others["missed"] == 0).all()


def test_every_number_stands_beside_its_null_and_the_best_there_can_be(card):
    table = card.to_frame()
    assert set(table["metric"]) == {one.id for one in card.metrics()}
    assert table["null"].notna().all()
    assert (table["low"] <= table["value"] + 1e-12).all()
    assert (table["value"] <= table["high"] + 1e-12).all()
    scores = card.scores["true"]
    assert scores["fvu"].null == 1
    assert scores["l0"].null == D
    assert scores["probe_1"].null < 0.6
    assert scores["probe_1"].best == pytest.approx((0.9 + 0.8 + 6 * 0.6) / 8)
    assert scores["mdl"].value < scores["mdl"].null
    assert card.scores["random"]["dead"].null == pytest.approx(card.scores["random"]["dead"].value, abs=0.05)
    assert all(metric.title in repr(card) or metric.id in repr(card) for metric in card.metrics())


def test_probes_are_told_label_by_label(card):
    lines = card.probes.query("dictionary == 'true' and k == 1")
    assert {(one.label, one.value) for one in lines.itertuples()} == {
        *(("larger", value) for value in LARGER[1:]),
        *(("kind", value) for value in KINDS[1:]),
    }
    assert (lines["f1"] > 0.95).all()
    assert (lines["shuffled"] < 0.6).all()
    told = lines.set_index("value")["ceiling"].to_dict()
    assert told == pytest.approx(CEILINGS.set_index("value")["f1"].to_dict())


def test_controls_are_made_of_the_same_size_and_count():
    found = scorecard(known(torch.eye(D), k=8), kingdom(SEED, 2000), labels=["kind"], draws=2, seed=SEED)
    assert list(found.scores) == ["dictionary", "frozen decoder", "PCA", "neurons"]
    frozen, neurons = found.scores["frozen decoder"], found.scores["neurons"]
    assert frozen["fvu"].value > 0.02
    assert neurons["fvu"].value < 1e-9
    assert neurons["l0"].value == D
    assert found.scores["PCA"]["l0"].value <= 8


def test_a_name_may_stand_for_several_seeds():
    store = kingdom(SEED, 2000)
    good, none = known(torch.eye(D), k=8), known(torch.eye(D), k=8)
    with torch.no_grad():
        none.W_enc.zero_()
    both = scorecard({"both": [good, none]}, store, controls={}, labels=[], draws=2).scores["both"]["fvu"]
    one = scorecard({"one": none}, store, controls={}, labels=[], draws=2).scores["one"]["fvu"]
    assert both.value == pytest.approx(one.value / 2, rel=0.05)
    assert both.high > 1 > both.low


def test_the_same_seed_gives_the_same_card():
    store = kingdom(SEED, 1500)
    one, two = (
        scorecard(absorbing(), store, controls={}, draws=2, labels=["kind"], seed=3).to_frame() for _ in range(2)
    )
    pd.testing.assert_frame_equal(one, two)


def test_an_interval_holds_the_mean_in_95_of_100_cases():
    g = torch.Generator().manual_seed(SEED)
    held = 0
    for _ in range(1000):
        found = mean_of(torch.randn(5, generator=g).tolist())
        held += found.low <= 0 <= found.high
    assert abs(held / 1000 - 0.95) < 4 * (0.95 * 0.05 / 1000) ** 0.5
    assert math.isnan(mean_of([1.0]).low)


# --- in a model -------------------------------------------------------------------------------------------------


def test_what_is_spliced_in_costs_what_a_text_by_text_count_says(model):
    site, documents = Site(1), corpus(60, seed=SEED)
    store = ActivationStore.collect(model, documents, [site])
    dictionary = Random(D_MODEL, 40, k=3, sites_in=site, seed=1)
    rows = store.rows(slice(None))
    dictionary.initialise(rows.acts)
    found = scorecard(
        {"it": dictionary, "all": _every_neuron(rows.acts[site], site)}, store, model, controls={}, draws=2
    )
    # Each part is judged once, so that the mean over draws is the mean over parts of their means.
    ce, kl = {"it": [], "mean": [], "zero": []}, []
    from workbench.evaluation.draws import Part, parts_of
    from workbench.models import edited

    parts = [Part(part, dictionary, model) for part in parts_of(store, dictionary, 2, 16_384)]
    for learn, judge in (parts, parts[::-1]):
        sums: dict[str, float] = dict.fromkeys(["it", "mean", "zero", "kl"], 0.0)
        count = 0
        for text, kept in judge.texts:
            assert int(text[0]) == BOS
            assert kept == len(text) - 1
            x = record(model, text[None], [site])[site]
            clean = model(text[None])[0].log_softmax(-1)
            new = {"it": dictionary(x), "mean": learn.y.mean(0).expand_as(x), "zero": torch.zeros_like(x)}
            for name, y in new.items():
                y = y.clone()
                y[:, 0] = x[:, 0]
                with edited(model, {site: lambda acts, _, y=y: y}):
                    log_q = model(text[None])[0].log_softmax(-1)
                here = (clean - log_q)[1:-1].gather(1, text[2:, None]).sum()
                sums[name] += float(here)
                if name == "it":
                    sums["kl"] += float((clean.exp() * (clean - log_q)).sum(-1)[1:-1].sum())
            count += len(text) - 2
        for name, several in ce.items():
            several.append(sums[name] / count)
        kl.append(sums["kl"] / count)
    scores = found.scores["it"]
    assert scores["ce"].value == pytest.approx(sum(ce["it"]) / 2, rel=1e-3, abs=1e-4)
    assert scores["ce"].null == pytest.approx(sum(ce["mean"]) / 2, rel=1e-3, abs=1e-4)
    assert scores["kl"].value == pytest.approx(sum(kl) / 2, rel=1e-3, abs=1e-4)
    # What an untrained model loses may be nothing, or less: then there is nothing to win back.
    for metric, instead in (("recovered", "mean"), ("recovered_zero", "zero")):
        lost = zip(ce["it"], ce["mean"], ce[instead], strict=True)
        shares = [1 - one / worst for one, mean, worst in lost if min(mean, worst) > 0]
        assert (metric in scores) == bool(shares)
        if shares and min(abs(worst) for worst in ce[instead]) > 0.01:  # else rounding decides
            assert scores[metric].value == pytest.approx(sum(shares) / len(shares), rel=1e-2, abs=1e-2)
    assert found.scores["all"]["kl"].value == pytest.approx(0, abs=1e-5)


def _every_neuron(acts: Tensor, site: Site) -> Neurons:
    dictionary = Neurons(D_MODEL, D_MODEL, sites_in=site)
    dictionary.initialise(acts)
    return dictionary


def test_a_transcoder_stands_beside_a_frozen_one(tiny_model):
    read, write = Site(1, "mlp_in"), Site(1, "mlp_out")
    store = ActivationStore.collect(tiny_model, corpus(40, seed=SEED), [read, write])
    dictionary = TopK(D_MODEL, 40, k=3, sites_in=read, sites_out=write)
    dictionary.initialise(store.rows(slice(None)).acts)
    found = scorecard(dictionary, store, tiny_model, draws=2, labels=["half"])
    assert list(found.scores) == ["dictionary", "frozen decoder"]
    assert {"kl", "mdl", "probe_1", "cosine"} <= found.scores["dictionary"].keys()


def test_the_shipped_dictionary_is_better_than_what_was_not_learnt():
    model, dictionary, language = load_model("tiny"), load_dictionary("tiny"), Language(0)
    documents = language.documents(400, split="test", seed=SEED)
    store = ActivationStore.collect(model, documents, dictionary.sites_in)
    best = ceilings(language, documents, ["topic", "number"])
    found = scorecard(
        {"shipped": dictionary}, store, model, labels=["topic", "number"], ceilings=best, draws=3, rows=3000, seed=SEED
    )
    shipped, frozen = found.scores["shipped"], found.scores["frozen decoder"]
    for metric in ("fvu", "mdl", "kl"):
        assert shipped[metric].high < frozen[metric].low
    for beside in ("frozen decoder", "PCA", "neurons"):
        assert shipped["probe_1"].value > found.scores[beside]["probe_1"].value
    assert shipped["probe_1"].null < shipped["probe_1"].value < shipped["probe_1"].best
    assert found.scores["neurons"]["recovered"].value == pytest.approx(1, abs=1e-3)
    assert shipped["recovered"].null == 0
    # What is measured from zero flatters all of them alike.
    assert frozen["recovered_zero"].value > 0.9


# --- what is refused ----------------------------------------------------------------------------------------------


def test_what_cannot_be_measured_is_told(tiny_model):
    store = kingdom(SEED, 600)
    good = known(torch.eye(D), k=8)
    elsewhere = TopK(D, D, k=6, sites_in=Site(1))
    cases = [
        ({}, {}, ValueError, "one dictionary or more, got none"),
        ({"a": []}, {}, TypeError, "'a' is a dictionary, or several of different seeds; got list"),
        ({"a": good, "b": elsewhere}, {}, ValueError, "'b' is of '1.resid_post', the first of '0.resid_post'"),
        (Crosscoder(D, 9, k=2, sites_in=[Site(0), Site(1)]), {}, ValueError, "read one named site and rebuild one"),
        (TopK(D, D, k=6), {}, ValueError, "reads no named site"),
        (good, {"labels": ["colour"]}, ValueError, "no labels 'colour'; it has larger, kind"),
        (good, {"draws": 1}, ValueError, "2 draws or more"),
        (good, {"rows": 10}, ValueError, "40 rows or more; got draws=5, rows=10"),
        (good, {"hierarchy": ("larger", "kinds")}, ValueError, "no labels 'kinds'"),
        (good, {"draws": 40}, ValueError, "Give more text, or fewer draws"),
        ({"PCA": good}, {"controls": {"PCA": good}}, ValueError, "'PCA' names a dictionary and a control"),
        (good, {"model": tiny_model}, ValueError, "another model"),
        (elsewhere, {}, ValueError, "This store has no"),
    ]
    for dictionaries, options, error, words in cases:
        with pytest.raises(error, match=words):
            scorecard(dictionaries, store, **options)


def test_every_metric_says_what_it_is_and_what_its_null_is():
    for name, metric in METRICS.items():
        assert (metric.name, metric.id) == (name, f"{name}@{metric.version}")
        assert metric.says
        assert metric.null
        assert replace(metric, version=2).id == f"{name}@2"
