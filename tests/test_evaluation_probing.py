"""Sparse probing: planted units found, scores held against what they are said to be, and chance beside them."""

import doctest
import itertools
import secrets
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics
from torch import Generator

from workbench.activations import ActivationStore
from workbench.dictionaries import Codes, load_dictionary
from workbench.evaluation import over_spans, probing, sparse_probe
from workbench.evaluation.probing import STRENGTH, Scores
from workbench.language import Language
from workbench.language.planted import World, neurons
from workbench.models import Site, load_model

RANKINGS = [*STRENGTH, "exchange"]
LAYER = 2


@pytest.fixture(params=[secrets.randbelow(2**40) for _ in range(3)])
def seed(request) -> int:
    return request.param


def f1(x, y, ks, **options) -> list[float]:
    return [probe.scores.f1 for probe in sparse_probe(x, y, ks=ks, **options).by_k.values()]


def shifted(seed: int, *, rows: int = 3000, units: int = 400, support: int = 8, shift: float = 1.0):
    """GELU of noise of one, in a tenth of the rows shifted on a few units; the units, and which rows."""
    generator = Generator().manual_seed(seed)
    y = torch.rand(rows, generator=generator) < 0.1
    true = torch.randperm(units, generator=generator)[:support]
    x = torch.randn(rows, units, generator=generator)
    x[:, true] += shift * y[:, None]
    return F.gelu(x), y, set(true.tolist())


def planted(seed: int, *, rows: int = 400, features: int = 30, k: int = 5):
    """Random codes of which some slots are empty, and labels that feature 3 tells but for some of the rows."""
    generator = Generator().manual_seed(seed)
    indices = torch.rand(rows, features, generator=generator).argsort(1)[:, :k]
    values = torch.randn(rows, k, generator=generator).abs() + 0.1
    values[torch.rand(rows, k, generator=generator) < 0.3] = 0
    # An empty slot may carry the index of a feature that is active.
    indices[:, 0] = torch.where(values[:, 0] == 0, indices[:, 1], indices[:, 0])
    codes = Codes(values, indices, features)
    return codes, (codes.dense()[:, 3] > 0) ^ (torch.rand(rows, generator=generator) < 0.02)


# --- what is planted is found --------------------------------------------------------------------------------


@pytest.mark.parametrize("ranking", RANKINGS)
def test_the_eight_units_that_a_label_shifts_are_found(ranking):
    found = []
    for seed in (secrets.randbelow(2**40) for _ in range(3)):
        x, y, true = shifted(seed)
        found.append(len(true & set(sparse_probe(x, y, ks=[8], ranking=ranking, prefilter=40).by_k[8].units.tolist())))
    assert np.mean(found) >= 0.9 * 8


def test_one_neuron_tells_its_feature_and_eight_tell_a_superposed_one():
    scores = []
    for seed in (secrets.randbelow(2**40) for _ in range(12)):
        world = World(seed=seed)
        rows = world.rows(6000, seed=seed)
        for name in ("neuron", "superposed"):
            scores += f1(rows.acts, rows.codes[:, world.groups[name].start] != 0, (1, 8))
    # Over 40 worlds the scores had the means .998, .999, .652, .987 and the deviations .003, .002, .074, .010, so that
    # the mean of twelve lies four of its deviations or more within each bound.
    neuron, _, single, eight = np.reshape(scores, (12, 4)).mean(0)
    assert neuron >= 0.95
    assert single < 0.75
    assert eight >= 0.95


@cache
def tiny():
    """Rows of the shipped model, which are held out, and the units of a layer: neurons and latents of two kinds."""
    model = load_model("tiny", device="cpu")
    documents = Language(0).documents(600, split="all", seed=secrets.randbelow(2**30))
    read, resid = Site(LAYER, "mlp_in"), Site(LAYER)
    rows = ActivationStore.collect(model, documents, [read, resid]).rows(slice(None))
    mlp: Any = model.original_model.get_submodule(f"gpt_neox.layers.{LAYER}.mlp")
    with torch.no_grad():
        hidden = mlp.act(mlp.dense_h_to_4h(rows.acts[read]))
        transcoder = load_dictionary(f"tiny/{LAYER}.transcoder").encode(rows.acts[read])
        latents = load_dictionary(f"tiny/{LAYER}.resid_post").encode(rows.acts[resid])
    held_out = (torch.rand(len(documents)) < 0.25)[rows.doc]
    return rows, held_out, hidden, transcoder, rows.acts[resid], latents


def test_features_planted_in_the_tiny_model_are_told_apart_by_how_many_neurons_they_need():
    rows, held_out, *_ = tiny()
    acts = rows.acts[Site(LAYER)]
    scores = []
    for seed in (secrets.randbelow(2**40) for _ in range(6)):
        for k in (1, 8):
            hidden = World({"planted": neurons(k, size=6.0)}, d=acts.shape[1], seed=seed).rows(len(acts), seed=seed)
            x = acts + hidden.acts * acts.std(0)
            scores += f1(x, hidden.codes[:, 0] != 0, (1, 8), held_out=held_out)
    neuron, _, single, eight = np.reshape(scores, (6, 4)).mean(0)
    assert neuron >= 0.95
    assert single < 0.75
    assert eight >= 0.95


LABELS = (
    ("family", "stories"),
    ("family", "code"),
    ("family", "machine"),
    ("category", "noun"),
    ("category", "name"),
    ("category", "number"),
    ("number", "plural"),
    ("depth", "2"),
)


def test_latents_need_fewer_units_than_neurons_for_the_same_f1():
    """Neurons of the MLP beside latents of its transcoder, axes of the stream beside latents of its dictionary."""
    rows, held_out, hidden, transcoder, axes, latents = tiny()
    scores = []
    for label, value in LABELS:
        y = rows.labels[label] == rows.names[label].index(value)
        for x, k in ((hidden, 16), (transcoder, 12), (axes, 16), (latents, 12)):
            # By the F-statistic, since neurons differ in scale.
            scores += f1(x, y, [k], held_out=held_out, ranking="f_statistic")
    of_neurons, of_transcoder, of_axes, of_latents = np.reshape(scores, (-1, 4)).mean(0)
    assert of_transcoder >= of_neurons
    assert of_latents >= of_axes


# --- scores are what they are said to be ---------------------------------------------------------------------


def test_scores_are_those_of_the_read_out_on_the_rows_held_out(seed):
    x, y, _ = shifted(seed, rows=800, units=30)
    x = 100 * x + 1000  # any unit, any origin
    held_out = torch.rand(len(y), generator=Generator().manual_seed(seed + 1)) < 0.3
    for probe in sparse_probe(x, y, ks=(1, 4), held_out=held_out).by_k.values():
        margin = (x[:, probe.units].double() @ probe.weight.double() + probe.bias)[held_out].numpy()
        true, told = y[held_out].numpy(), margin >= 0
        hits = (true & told).sum()
        precision, recall = hits / max(told.sum(), 1), hits / true.sum()
        expected = Scores(
            f1=2 * hits / (told.sum() + true.sum()),
            precision=precision,
            recall=recall,
            pr_auc=float(metrics.average_precision_score(true, margin)),
            auroc=float(np.mean(margin[true][:, None] > margin[~true])),
            mcc=float(np.corrcoef(true, told)[0, 1]) if 0 < told.sum() < len(told) else 0.0,
        )
        assert vars(probe.scores) == pytest.approx(vars(expected), abs=1e-2)


def test_the_threshold_is_the_one_of_best_f1_on_the_training_rows(seed):
    x, y, _ = shifted(seed, rows=400, units=5, support=1)
    held_out = torch.arange(len(y)) % 4 == 0
    probe = sparse_probe(x, y, ks=[1], held_out=held_out).by_k[1]
    margin = x[~held_out][:, probe.units].double() @ probe.weight.double() + probe.bias
    true = y[~held_out]

    def at(told) -> float:
        return float(2 * (told & true).sum() / (told.sum() + true.sum()))

    assert at(margin >= 0) >= max(at(margin >= cut) for cut in margin) - 0.01  # weights are single precision


def test_labels_without_meaning_score_as_chance_however_many_units_there_are_to_choose_from():
    told, control = [], []
    for seed in (secrets.randbelow(2**40) for _ in range(20)):
        generator = Generator().manual_seed(seed)
        x, y = torch.randn(200, 1000, generator=generator), torch.rand(200, generator=generator) < 0.5
        probe = sparse_probe(x, y, ks=[8], seed=seed).by_k[8]
        told.append(probe.scores.auroc)
        control.append(probe.shuffled.auroc)
    # Twenty means of 25 rows against 25, each with a deviation of 0.083, come within 0.1 in five deviations.
    assert abs(np.mean(told) - 0.5) < 0.1
    assert abs(np.mean(control) - 0.5) < 0.1


def test_the_control_of_a_label_that_is_told_perfectly_is_at_chance(seed):
    x, y, _ = shifted(seed, shift=5.0)
    probe = sparse_probe(x, y, ks=[1], seed=seed).by_k[1]
    assert probe.scores.auroc > 0.95
    assert abs(probe.shuffled.auroc - 0.5) < 0.2


def test_the_same_seed_gives_the_same_table(seed):
    x, y, _ = shifted(seed, rows=500, units=20)
    one, other = (sparse_probe(x, y, ks=(1, 2), ranking="mutual_information", seed=seed).to_frame() for _ in range(2))
    assert one.equals(other)
    assert one["k"].tolist() == [1, 2]
    assert {"f1", "f1 shuffled", "pr_auc", "pr_auc shuffled", "mcc", "mcc shuffled"} <= set(one)


# --- rankings ------------------------------------------------------------------------------------------------


def test_exchange_finds_a_pair_of_which_one_unit_tells_nothing_alone():
    """A unit with noise, the noise itself, and decoys that each tell a little."""
    for seed in (secrets.randbelow(2**40) for _ in range(5)):
        generator = Generator().manual_seed(seed)
        y = torch.rand(2000, generator=generator) < 0.5
        x = torch.randn(2000, 12, generator=generator)
        x[:, 2:] += 0.5 * y[:, None]
        x[:, 0] = x[:, 1] + y + 0.1 * torch.randn(2000, generator=generator)
        assert set(sparse_probe(x, y, ks=[2], ranking="exchange").by_k[2].units.tolist()) == {0, 1}
        assert 1 not in sparse_probe(x, y, ks=[2]).by_k[2].units


def test_no_exchange_of_one_unit_explains_more_of_the_label(seed):
    generator = Generator().manual_seed(seed)
    x = (torch.randn(300, 10, generator=generator) @ torch.randn(10, 10, generator=generator)).double()
    y = x[:, :4].sum(1) + torch.randn(300, generator=generator).double() > 2
    x = ((x - x.mean(0)) / x.std(0, correction=0)).numpy()
    weight = np.where(y, 0.5 / float(y.sum()), 0.5 / float((~y).sum())) ** 0.5
    target = np.where(y, 1.0, -1.0) * weight

    def left(units) -> float:
        columns = np.column_stack([x[:, list(units)], np.ones(300)]) * weight[:, None]
        return float(np.square(target - columns @ np.linalg.lstsq(columns, target, rcond=None)[0]).sum())

    ks = [1, 2, 3, 4]
    for k, subset in zip(ks, probing._exchanged(x, y.numpy(), ks), strict=True):
        chosen = set(subset.tolist())
        assert len(chosen) == k
        others = [chosen - {old} | {new} for old in chosen for new in set(range(10)) - chosen]
        assert left(chosen) <= min(map(left, others)) + 1e-5
        if k == 1:
            assert left(chosen) <= min(left([unit]) for unit in range(10)) + 1e-5


def test_exchange_is_optimal_on_most_small_problems():
    exact = []
    for seed in (secrets.randbelow(2**40) for _ in range(40)):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(200, 9)) @ rng.normal(size=(9, 9))
        y = x[:, :3] @ rng.normal(size=3) + rng.normal(size=200) > 0
        x = (x - x.mean(0)) / x.std(0)
        share = np.where(y, 0.5 / y.sum(), 0.5 / (~y).sum())
        centred, side = x - share @ x, np.where(y, 1.0, -1.0) * share

        def explained(units, x=centred, side=side, share=share) -> float:
            part = x[:, list(units)]
            return float((part.T @ side) @ np.linalg.solve((share[:, None] * part).T @ part, part.T @ side))

        best = max(itertools.combinations(range(9), 3), key=explained)
        exact.append(explained(probing._exchanged(x, y, [3])[0]) >= explained(best) - 1e-4)
    assert np.mean(exact) >= 0.75


@pytest.mark.parametrize("ranking", RANKINGS)
def test_units_that_never_change_and_copies_are_no_trouble(ranking, seed):
    x, y, true = shifted(seed, rows=2000, units=6, support=1, shift=5.0)
    best = true.pop()
    x = torch.cat([x, x[:, [best]], torch.ones(len(y), 1), torch.zeros(len(y), 1)], dim=1)
    probe = sparse_probe(x, y, ks=(1, 9), ranking=ranking)
    assert probe.by_k[1].units.tolist()[0] in (best, 6)
    assert all(np.isfinite(list(vars(p.scores).values())).all() for p in probe.by_k.values())


# --- codes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranking", RANKINGS)
def test_codes_are_probed_as_what_they_stand_for(ranking, seed):
    codes, y = planted(seed)
    options = {"ks": (1, 3), "ranking": ranking, "prefilter": 10}
    expected = codes.dense()
    sparse, dense = sparse_probe(codes, y, **options), sparse_probe(expected, y, **options)
    assert torch.equal(codes.dense(), expected)  # what was given is left as it was
    for k in (1, 3):
        assert sparse.by_k[k].units.tolist() == dense.by_k[k].units.tolist()
        assert sparse.by_k[k].weight == pytest.approx(dense.by_k[k].weight, rel=1e-3, abs=1e-5)
    assert np.allclose(*(table.to_frame().drop(columns="ranking") for table in (sparse, dense)), atol=1e-6)


def test_a_million_features_are_never_made_dense():
    generator = Generator().manual_seed(secrets.randbelow(2**40))
    y = torch.rand(2000, generator=generator) < 0.2
    indices = torch.randint(1_000_000, (2000, 8), generator=generator)
    values = torch.rand(2000, 8, generator=generator)
    indices[:, 0] = 777_777
    values[:, 0] = torch.where(y, 1.0, 0.0)
    # Dense, these rows would be eight gigabytes.
    probe = sparse_probe(Codes(values, indices, 1_000_000), y, ks=[1]).by_k[1]
    assert probe.units.tolist() == [777_777]
    assert probe.scores.f1 == 1


# --- spans ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["max", "mean"])
def test_spans_are_read_as_a_whole(how, seed):
    generator = Generator().manual_seed(seed)
    codes, _ = planted(seed)
    signs = torch.where(torch.rand(codes.values.shape, generator=generator) < 0.5, -1.0, 1.0)
    codes = Codes(codes.values * signs, codes.indices, codes.n_features)
    spans = torch.randint(-1, 150, (400,), generator=generator)
    spans[:150] = torch.arange(150)
    dense = codes.dense()
    naive = torch.stack([getattr(torch, f"a{how}" if how == "max" else how)(dense[spans == i], 0) for i in range(150)])
    assert torch.allclose(over_spans(dense, spans, how), naive, atol=1e-6)
    pooled = over_spans(codes, spans, how)
    assert torch.allclose(pooled.dense(), naive, atol=1e-6)


def test_a_label_that_one_token_of_a_span_carries_is_told_by_the_largest_activation():
    scores = []
    for seed in (secrets.randbelow(2**40) for _ in range(3)):
        generator = Generator().manual_seed(seed)
        spans = torch.arange(1000).repeat_interleave(10)
        y = torch.rand(1000, generator=generator) < 0.3
        x = torch.randn(10_000, 20, generator=generator)
        x[torch.arange(1000) * 10 + torch.randint(10, (1000,), generator=generator), 7] += 5.0 * y
        scores.append([f1(over_spans(x, spans, how), y, [1])[0] for how in ("max", "mean")])
    largest, mean = np.mean(scores, axis=0)
    assert largest > 0.9
    assert largest > mean


def test_codes_without_an_active_feature_have_spans_too():
    silent = Codes(torch.zeros(4, 2), torch.zeros(4, 2, dtype=torch.long), 5)
    pooled = over_spans(silent, torch.tensor([0, 0, 1, 1]))
    assert torch.equal(pooled.dense(), torch.zeros(2, 5))


def test_examples_are_true():
    assert doctest.testmod(probing).failed == 0


# --- bad input -----------------------------------------------------------------------------------------------

X, Y = torch.randn(40, 6, generator=Generator().manual_seed(0)), torch.arange(40) % 2 == 0
UNKNOWN: Any = "best"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: sparse_probe(X, Y[:30]), r"True or False for each of 40 rows, got 30 labels of torch\.bool"),
        (lambda: sparse_probe(X, Y.long()), r"got 40 labels of torch\.int64; make them by a comparison"),
        (lambda: sparse_probe(X, Y, ks=[7]), r"lies in 1\.\.6 \(units\), and there is at least one; got \(7,\)"),
        (lambda: sparse_probe(X, Y, ks=[]), r"at least one; got \(\)"),
        (
            lambda: sparse_probe(X, Y, ks=[1], ranking=UNKNOWN),
            r"'best' is not a ranking; there are mean_difference, f_",
        ),
        (lambda: sparse_probe(X[None], Y, ks=[1]), r"\[row, unit\] or codes \[row, k\], got \(1, 40, 6\); flatten"),
        (lambda: sparse_probe(X, Y & False, ks=[1]), r"training rows need two with the label and two without, got 0"),
        (lambda: sparse_probe(X, Y, ks=[1], held_out=Y), r"training rows need two with the label .* got 0 and 20"),
        (lambda: sparse_probe(X, Y, ks=[1], held_out=~Y[:8]), r"of each of 40 rows, got 8 of torch\.bool"),
        (lambda: sparse_probe(X, Y, ks=[1], held_out=Y.long()), r"got 40 of torch\.int64"),
        (lambda: sparse_probe(X * torch.nan, Y, ks=[1]), r"6 of 6 units are not finite"),
        (lambda: over_spans(X, torch.arange(40), UNKNOWN), r'takes "max" or "mean" .* got \'best\''),
        (lambda: over_spans(X, torch.arange(30)), r"a span for each of 40 rows, .* and 30 numbers"),
        (lambda: over_spans(X, 2 * torch.arange(40)), r"with 39 gaps among 79 spans"),
        (lambda: over_spans(X, torch.full((40,), -1)), r"0 gaps among 0 spans"),
    ],
)
def test_bad_input_is_named(as_user, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
