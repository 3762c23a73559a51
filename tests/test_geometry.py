"""Geometry: measures against naive counts and planted truths, and experiments against what was published of them.

What the experiments promise is held over seeds drawn anew each time.
"""

import doctest
import itertools
import secrets
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy import stats

from workbench.geometry import (
    collapse,
    erase,
    erasure,
    linear_origin,
    mean_directions,
    measures,
    random_directions,
    variance_explained,
)
from workbench.geometry.toys import concepts, features, roles, shortcuts
from workbench.geometry.toys.concepts import Concepts, learn_tokens
from workbench.geometry.toys.features import Feature, learn_features
from workbench.geometry.toys.roles import learn_words
from workbench.geometry.toys.shortcuts import Shortcut, rely


@pytest.fixture(params=[secrets.randbelow(2**40) for _ in range(3)])
def seed(request) -> int:
    return request.param


def cloud(seed: int, rows: int = 60, d: int = 5):
    """Activations with a large offset, two labels of which only the first moves them, and weights."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (rows, 2), generator=generator)
    acts = torch.randn(rows, d, generator=generator) + labels[:, :1] + 1000
    return acts, labels, torch.rand(rows, generator=generator)


# --- measures ------------------------------------------------------------------------------------------------


def sums_by_hand(acts, labels, weight) -> tuple[float, float]:
    """Variance within and between classes, row by row."""
    x, w = acts.double().numpy(), weight.double().numpy() / float(weight.double().sum())
    centre = sum(w[i] * x[i] for i in range(len(x)))
    within = between = 0.0
    for i in range(len(x)):
        mates = [j for j in range(len(x)) if labels[j].tolist() == labels[i].tolist()]
        mean = sum(w[j] * x[j] for j in mates) / sum(w[j] for j in mates)
        within += w[i] * ((x[i] - mean) ** 2).sum()
        between += w[i] * ((mean - centre) ** 2).sum()
    return within, between


@pytest.mark.parametrize("which", [0, [0], [0, 1]], ids=["one", "one of many", "jointly"])
def test_variance_explained_and_collapse_are_what_a_naive_count_says(seed, which):
    acts, labels, weight = cloud(seed)
    within, between = sums_by_hand(acts, labels[:, which], torch.ones(len(acts)))
    assert variance_explained(acts, labels[:, which]).share == pytest.approx(between / (within + between), abs=1e-9)
    within, between = sums_by_hand(acts, labels[:, which], weight)
    found = collapse(acts, labels[:, which], weight=weight)
    assert (found.within, found.between) == pytest.approx((within, between), rel=1e-9)
    assert found.ratio == pytest.approx(within / between, rel=1e-9)
    assert float(found.rows @ weight / weight.sum()) == pytest.approx(found.ratio, rel=1e-5)


def test_measures_know_nothing_of_scale_place_turn_or_the_names_of_classes(seed):
    acts, labels, _ = cloud(seed)
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(seed)))
    moved, named = (acts - 1000) @ turn * 7 + 3, 10 - 3 * labels[:, 0]
    here, there = variance_explained(acts, labels[:, 0]), variance_explained(moved, named)
    assert there.share == pytest.approx(here.share, abs=1e-4)
    assert collapse(moved, named).ratio == pytest.approx(collapse(acts, labels[:, 0]).ratio, rel=1e-3)


def test_planted_shares_of_variance_are_found_and_add_up_where_labels_are_independent():
    grid = torch.tensor(list(itertools.product([0, 1], [0, 1], range(-2, 3))))
    acts = torch.stack([6.0 * grid[:, 0], 3.0 * grid[:, 1], grid[:, 2].float()], dim=1)  # variances 9, 2.25, 2
    shares = [variance_explained(acts, labels).share for labels in (grid[:, 0], grid[:, 1], grid[:, :2])]
    assert shares == pytest.approx([9 / 13.25, 2.25 / 13.25, 11.25 / 13.25], abs=1e-9)
    assert variance_explained(acts, torch.arange(20)).share == pytest.approx(1)
    assert variance_explained(acts, torch.zeros(20, dtype=torch.long)).p == 1
    assert collapse(acts[:, :2], grid[:, :2]).ratio < 1e-9


def test_the_null_is_what_labels_without_meaning_explain():
    generator = torch.Generator().manual_seed(0)
    x, empty = torch.randn(200, 4, generator=generator), torch.randint(5, (200,), generator=generator)
    found = variance_explained(x, empty, permutations=400)
    assert float(found.null.mean()) == pytest.approx(4 / 199, rel=0.1)
    assert found.p == (1 + int((found.null >= found.share).sum())) / 401
    assert variance_explained(x + empty[:, None], empty, permutations=99).p == 0.01
    values = [
        variance_explained(torch.randn(200, 4, generator=generator), empty, permutations=39).p for _ in range(100)
    ]
    assert stats.kstest(values, "uniform").pvalue > 1e-6
    again = variance_explained(x, empty, permutations=400, seed=0)
    assert torch.equal(found.null, again.null)
    assert not torch.equal(found.null, variance_explained(x, empty, permutations=400, seed=1).null)
    assert variance_explained(x, empty, permutations=0).p == 1


def test_linear_origin_is_what_a_naive_count_says(seed):
    generator = torch.Generator().manual_seed(seed)
    table = Concepts([[], [], []]).table[torch.tensor([6, 1, 0, 3, 2, 7, 5])]  # one state is nobody's
    vectors = torch.randn(7, 4, generator=generator) + 5 * table[:, :1]
    found, units = linear_origin(vectors, table), []
    for i in range(3):
        pairs = [(a, b) for a in range(7) for b in range(7) if (table[a] - table[b]).tolist() == np.eye(3)[i].tolist()]
        differences = [(vectors[a] - vectors[b]).double().numpy() for a, b in pairs]
        units.append([v / np.linalg.norm(v) for v in differences])
        assert len(pairs) == 3
    for i, j in itertools.product(range(3), repeat=2):
        cosines = [
            a @ b for (m, a), (n, b) in itertools.product(enumerate(units[i]), enumerate(units[j])) if m != n or i != j
        ]
        if i == j:
            assert float(found.same[i]) == pytest.approx(np.mean(cosines), abs=1e-6)
        else:
            assert float(found.different[i, j]) == pytest.approx(np.mean(np.abs(cosines)), abs=1e-6)


def test_planted_directions_are_found_and_the_shuffled_control_has_none():
    table = Concepts([[]] * 4).table
    directions = torch.linalg.qr(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))[0].T
    directions[1] = directions[0] * 0.6 + directions[1] * 0.8
    found = linear_origin(100 + table.float() @ directions, table)
    assert found.same.tolist() == pytest.approx([1] * 4, abs=1e-4)
    assert float(found.different[0, 1]) == pytest.approx(0.6, abs=1e-4)
    assert float(found.different[2:, :2].max()) < 1e-4
    assert float(found.shuffled.max()) < 0.5


def test_erased_labels_explain_nothing_and_what_lies_across_them_stays(seed):
    acts, labels, _ = cloud(seed)
    of = labels[:, 0]
    directions = mean_directions(acts, of)
    assert directions.shape == (2, 5)
    assert torch.allclose(directions @ directions.T, torch.eye(2), atol=1e-5)
    erased = erase(acts, 3 * directions + 0.5 * directions.flip(0))  # any that span the same
    x, y = acts.double().numpy(), erased.acts.double().numpy()
    means = np.stack([x[of == k].mean(0) for k in range(3)])
    basis = np.linalg.qr((means[1:] - means[0]).T)[0]
    along = (x - x.mean(0)) @ basis @ basis.T
    assert y == pytest.approx(x - along, abs=1e-3)
    assert erased.share == pytest.approx((along**2).sum() / ((x - x.mean(0)) ** 2).sum(), abs=1e-6)
    assert variance_explained(erased.acts, of, permutations=0).share < 1e-6
    assert erase(erased.acts, directions).share < 1e-6
    assert erase(acts, torch.cat([directions, directions])).share == pytest.approx(erased.share)


def test_means_that_lie_on_a_line_have_one_direction_and_equal_ones_none():
    of = torch.arange(30) % 3
    acts = torch.stack([2.0 * of, 1 - of, torch.arange(30) // 3 % 2], dim=1)
    expected = torch.tensor([[2.0, -1.0, 0.0]]) / 5**0.5
    assert torch.allclose(mean_directions(acts, of).abs(), expected.abs(), atol=1e-6)
    assert mean_directions(acts, acts[:, 2].long() * 0).shape == (0, 3)
    assert torch.equal(erase(acts, mean_directions(acts, 0 * of)).acts, acts)


def test_random_directions_hold_the_variance_that_was_asked_for_and_no_more_than_needed(seed):
    acts = torch.randn(200, 40, generator=torch.Generator().manual_seed(seed)) * torch.linspace(0.1, 3, 40)
    for share in (0.2, 0.7):
        directions = random_directions(acts, share, seed=seed)
        assert torch.allclose(directions @ directions.T, torch.eye(len(directions)), atol=1e-5)
        assert erase(acts, directions).share >= share > erase(acts, directions[:-1]).share
    assert not torch.equal(directions, random_directions(acts, share, seed=seed + 1)[: len(directions)])
    assert erase(acts, random_directions(acts, 1.0, seed=seed)).share == pytest.approx(1)


@pytest.mark.usefixtures("as_user")
def test_bad_input_is_met_by_a_sentence():
    x, labels = torch.randn(4, 2), torch.tensor([0, 0, 1, 1])
    for wrong, match in [
        (lambda: variance_explained(x, labels[:3]), "got 4 rows, 3 labels, no weights"),
        (lambda: variance_explained(torch.ones(4, 2), labels), "rows must differ"),
        (lambda: variance_explained(x / 0, labels), "of finite numbers"),
        (lambda: collapse(x, labels, weight=torch.ones(3)), "4 labels, 3 weights"),
        (lambda: collapse(x, labels, weight=-torch.ones(4)), "none is negative"),
        (lambda: collapse(x, 0 * labels), "which is 0 here"),
        (lambda: linear_origin(x, torch.tensor([[0], [1], [2], [0]])), r"the values \[0, 1, 2\]"),
        (lambda: linear_origin(x, labels[:, None]), "but 2 of 4 repeat one"),
        (lambda: linear_origin(x[:2], labels[1:3, None]), r"Concept 0 alone tells 1 pair\(s\)"),
        (lambda: erase(x, torch.ones(1, 3)), r"rows of 2 numbers, as the activations; got \(1, 3\)"),
        (lambda: erase(torch.ones(4, 2), x), "rows must differ"),
        (lambda: random_directions(x, 0.0), "share must lie above 0 and at most at 1, got 0.0"),
        (lambda: mean_directions(x, labels[:3]), "got 4 rows, 3 labels"),
        (lambda: learn_features([]), "at least one feature"),
        (lambda: learn_features([Feature(prevalence=0.0)]), r"got \[0.0\] and 'mlp'"),
        (lambda: learn_features([Feature()], network="cnn"), "and 'cnn'"),
        (lambda: Shortcut(core=1.0), "predictivities from 0.5 to below 1"),
        (lambda: Shortcut(copies=0), "at least 1 copy"),
        (lambda: Concepts([[0]]), "earlier concepts"),
        (lambda: Concepts(coupling=2.0), "coupling lies in 0..1"),
        (lambda: learn_tokens(torch.tensor([[0, 4]]), 4), "of tokens from 0 to 3"),
    ]:
        with pytest.raises(ValueError, match=match):
            wrong()


def test_the_examples_of_the_docstrings_are_true():
    for module in (measures, erasure, features, concepts, roles, shortcuts):
        assert doctest.testmod(module).failed == 0


# --- features of unequal complexity, order, prevalence and place (Lampinen et al. 2024) ------------------------

XOR = Feature(complexity="xor")


@cache  # tests look at one network in several ways
def learn(*kinds: Feature, **options):
    return learn_features(kinds, **options)


def explained(*kinds: Feature, **options) -> list[float]:
    """Variance explained by each feature, all of which must have been learned."""
    learned = learn(*kinds, **options)
    assert float(learned.accuracy.min()) >= 0.99
    of_each = [variance_explained(learned.acts, labels, permutations=20) for labels in learned.labels.T]
    assert all(one.share > 2 * float(one.null.max()) for one in of_each)
    return [one.share for one in of_each]


def test_of_two_features_learned_equally_well_the_linear_one_explains_three_times_what_xor_does(seed):
    linear, xor = explained(Feature(), XOR, seed=seed)
    assert linear >= 3 * xor
    xor, linear = explained(XOR, Feature(), seed=seed)
    assert linear >= 3 * xor
    one, other = explained(Feature(), Feature(), seed=seed)
    assert 0.75 < one / other < 1.33


def test_without_its_direction_either_answer_is_lost_however_much_variance_that_held(seed):
    learned = learn(Feature(), XOR, seed=seed)
    lost = [erase(learned.acts, mean_directions(learned.acts, labels)) for labels in learned.labels.T]
    assert lost[0].share > 3 * lost[1].share
    for feature, erased in enumerate(lost):
        accuracy = learned.retest(erased.acts)
        # A coin is right half the time; classes of equal means may still be skewed, which is worth a little.
        assert accuracy[feature] < 0.7
        assert accuracy[1 - feature] > 0.99
    control = erase(learned.acts, random_directions(learned.acts, lost[0].share, seed=seed))
    assert control.share >= lost[0].share
    assert learned.retest(control.acts).min() > 0.9


def test_sums_modulo_two_explain_less_than_xor_and_less_than_linear(seed):
    linear, xor, sum_mod = explained(Feature(), XOR, Feature(complexity="sum_mod"), steps=2000, seed=seed)
    assert linear > 2 * xor > 2 * sum_mod


def test_what_is_learned_first_or_asked_more_often_explains_more(seed):
    late, first = explained(XOR, Feature(complexity="xor", pretrained=True), seed=seed)
    assert first > 1.25 * late
    often, rare = explained(Feature(), Feature(prevalence=0.1), steps=1000, seed=seed)
    assert often > 1.5 * rare


def test_a_transformer_represents_the_feature_it_answers_first_more_strongly():
    # How much more differs between networks, from an eighth to nearly five times; so their mean is held to it.
    ratios = []
    for seed in [secrets.randbelow(2**40) for _ in range(6)]:
        first, second = explained(Feature(), Feature(), network="transformer", steps=300, seed=seed)
        ratios.append(first / second)
    assert sum(ratio > 1 for ratio in ratios) >= 4
    assert np.exp(np.mean(np.log(ratios))) > 1.3


# --- shortcuts (Hermann et al. 2024) ---------------------------------------------------------------------------


def test_a_latent_predicts_the_class_as_often_as_it_says_and_is_seen_as_it_says():
    data = Shortcut(core=0.9, shortcut=0.7, amplitude=3.0, copies=2)
    z, y = data.draw(100_000, torch.Generator().manual_seed(0))
    assert ((z > 0) == (y[:, None] > 0)).float().mean(0).tolist() == pytest.approx([0.9, 0.7], abs=0.008)
    assert torch.corrcoef((z * y[:, None]).T)[0, 1].abs() < 0.02
    assert torch.equal(data.inputs(z), torch.stack([z[:, 0], 3 * z[:, 1], 3 * z[:, 1]], dim=1))


def test_availability_raises_shortcut_bias_in_a_relu_network_and_not_in_a_linear_one(seed):
    levels = [Shortcut(amplitude=amplitude) for amplitude in (0.5, 1.0, 2.0, 4.0)]
    relu = [[rely(level, seed=seed + n) for level in levels] for n in range(3)]
    linear = [rely(level, hidden=None, seed=seed) for level in levels]
    # One network may rely a little less where the shortcut is more available; the mean of three does not.
    biases = [sum(one.bias for one in of_level) / 3 for of_level in zip(*relu, strict=True)]
    assert all(before < after for before, after in itertools.pairwise(biases))
    drift = max(one.bias for one in linear) - min(one.bias for one in linear)
    assert all(of_seed[-1].bias - of_seed[0].bias > 10 * drift for of_seed in relu)
    assert max(abs(one.bias) for one in linear) < 0.1
    assert all(one.accuracy > 0.985 for one in (*itertools.chain(*relu), *linear))  # 0.996 is the best there is
    copies = sum(rely(Shortcut(copies=16), seed=seed + n).bias for n in range(3)) / 3
    assert copies > biases[1]


# --- words in roles (Laurent et al. 2023) ----------------------------------------------------------------------


def role_collapse(words) -> tuple[float, float, float]:
    """The ratio of collapse, and its mean over rare and over frequent words; all of them must have been learned."""
    assert words.accuracy >= 0.99
    found, rare = collapse(words.acts, words.labels, weight=words.weight), words.weight < words.weight.median()
    return found.ratio, float(found.rows[rare].mean()), float(found.rows[~rare].mean())


def test_words_of_a_role_collapse_under_zipf_with_layer_norm_and_rare_ones_do_not_without(seed):
    normed, plain = (role_collapse(learn_words(norm=norm, seed=seed)) for norm in (True, False))
    assert max(normed) < 0.1
    assert plain[1] > 0.1
    assert plain[1] > 10 * normed[1]
    assert plain[1] > 2 * plain[2]


def test_what_keeps_rare_words_apart_is_their_length_and_that_the_penalty_makes(seed, monkeypatch):
    words = learn_words(norm=False, seed=seed)
    rare, length = words.weight < words.weight.median(), words.acts.norm(dim=1, keepdim=True)
    assert length[rare].mean() < 0.8 * length[~rare].mean()
    assert role_collapse(replace(words, acts=words.acts / length))[1] < 0.01
    assert words.retest(words.acts / length) >= 0.99
    monkeypatch.setattr(roles, "DECAY", 0.0)
    assert role_collapse(learn_words(norm=False, seed=seed))[1] < 0.1


def test_without_zipf_words_collapse_without_layer_norm_too_and_training_is_what_does_it(seed):
    even = learn_words(norm=False, zipf=0.0, seed=seed)
    assert collapse(even.acts, even.labels, weight=even.weight).ratio < 0.1
    untrained = learn_words(norm=True, steps=0, seed=seed)
    assert collapse(untrained.acts, untrained.labels, weight=untrained.weight).ratio > 1


# --- concepts in a corpus (Jiang et al. 2024) ------------------------------------------------------------------


def test_a_corpus_is_drawn_as_its_graph_and_softmax_say():
    world = Concepts([[], [], [0, 1]], coupling=0.6, sharpness=0.5)
    pairs = world.corpus(200_000, seed=0)
    state, token = world.table[pairs[:, 0]], world.table[pairs[:, 1]]
    assert state.float().mean(0).tolist() == pytest.approx([0.5] * 3, abs=0.01)
    same = (state[:, :, None] == state[:, None, :]).float().mean(0)
    assert same[0, 1].item() == pytest.approx(0.5, abs=0.01)
    assert same[0, 2].item() == pytest.approx(0.5 + 0.6 / 4, abs=0.01)
    logits = 0.5 * (2.0 * world.table - 1) @ (2.0 * world.table[5] - 1)
    drawn = torch.bincount(pairs[pairs[:, 0] == 5, 1], minlength=8).float()
    assert (drawn / drawn.sum()).tolist() == pytest.approx(logits.softmax(0).tolist(), abs=0.015)
    assert (state == token).float().mean().item() == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item(), abs=0.01)
    assert world.independent.tolist() == [[False, True, False], [True, False, False], [False, False, False]]
    shuffled = world.corpus(200_000, seed=0, shuffle=True)
    assert torch.equal(shuffled[:, 1].sort().values, pairs[:, 1].sort().values)
    assert torch.equal(shuffled[:, 0], pairs[:, 0])


def test_concepts_become_parallel_and_independent_ones_orthogonal_unless_the_corpus_is_shuffled(seed):
    world = Concepts()
    tokens = len(world.table)
    found = linear_origin(learn_tokens(world.corpus(500_000, seed=seed), tokens, seed=seed), world.table)
    assert float(found.same.min()) >= 0.9
    assert float(found.different[world.independent].max()) < 0.1
    assert float(found.shuffled.max()) < 0.5
    control = learn_tokens(world.corpus(500_000, seed=seed, shuffle=True), tokens, seed=seed)
    broken = linear_origin(control, world.table)
    assert float(broken.same.mean()) < 0.5
    assert float(broken.different[world.independent].max()) > 0.1


# --- all of them -----------------------------------------------------------------------------------------------


def test_seeds_decide_everything_and_the_global_generator_nothing():
    def everything(seed: int) -> list[torch.Tensor]:
        learned = [learn_features([Feature(prevalence=0.5), XOR], network=n, steps=3, seed=seed) for n in features.BITS]
        made = [one.acts for one in learned] + [learn_words(norm=False, steps=3, seed=seed).acts]
        corpus = Concepts().corpus(50, seed=seed)
        reliance = rely(Shortcut(), steps=3, seed=seed)
        return [*made, corpus, learn_tokens(corpus, 32, steps=3, seed=seed), torch.tensor(reliance.shortcut)]

    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = everything(5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(one, everything(5), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, everything(6), strict=True))
