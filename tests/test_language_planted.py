"""Planted activations: every truth a world states is counted again from its rows, by other means.

The seeds of most tests are drawn anew each time. What is left to chance is held to bounds that a true statement
breaks about once in a hundred million (ALPHA), shared among all that is compared.
"""

import itertools
import math
import secrets
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from workbench.language.planted import (
    Part,
    World,
    circle,
    law,
    neurons,
    pair,
    plain,
    recovery,
    standard,
    tree,
    twins,
)

ALPHA = 1e-8
ROWS = 20_000


@pytest.fixture(params=[secrets.randbelow(2**40) for _ in range(2)])
def seed(request) -> int:
    return request.param


def happens(count, out_of, p) -> bool:
    """Whether all these counts are as binomial draws of probability p may be."""
    count, out_of, p = np.broadcast_arrays(count, out_of, p)
    tails = np.minimum(stats.binom.cdf(count, out_of, p), stats.binom.sf(count - 1, out_of, p))
    return bool((tails > ALPHA / count.size).all())


def mean_is(values, expected, deviation) -> bool:
    """Whether the mean of independent values of a known deviation is as expected."""
    z = abs(np.mean(values) - expected) / (deviation / math.sqrt(len(values)))
    return bool(z < stats.norm.isf(ALPHA))


def draw(parts: dict[str, Part], seed: int, n: int = ROWS, **options):
    """A world and its rows: codes and activations as numpy, by part."""
    world = World(parts, seed=seed, **options)
    rows = world.rows(n, seed=seed + 1)
    return world, {name: rows.codes[:, where].numpy() for name, where in world.groups.items()}, rows


# --- every world ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_activations_are_coefficients_times_directions_and_the_offset(seed, offset):
    world = World(seed=seed, offset=offset)
    rows = world.rows(500, seed=seed)
    by_hand = np.tile(world.offset.double().numpy(), (500, 1))
    for feature in range(len(world.names)):
        by_hand += np.outer(rows.codes[:, feature].double(), world.directions[feature].double())
    assert np.abs(by_hand - rows.acts.numpy()).max() < 1e-5
    assert world.offset.norm().item() == pytest.approx(offset, abs=1e-5)


def test_noise_is_added_and_nothing_else_changes(seed):
    clean, noisy = (World(seed=seed, noise=noise).rows(2000, seed=seed) for noise in (0.0, 0.3))
    assert torch.equal(clean.codes, noisy.codes)
    noise = (noisy.acts - clean.acts).flatten().double().numpy()
    assert mean_is(noise, 0, 0.3)
    assert mean_is(noise**2, 0.09, 0.09 * math.sqrt(2))
    silent = World({"silent": neurons(p=0.0)}, seed=seed, noise=0.3)
    assert not torch.equal(silent.rows(5, seed=1).acts, silent.rows(5, seed=2).acts)


def test_the_standard_world_has_more_features_than_dimensions_and_unit_directions(seed):
    world = World(seed=seed)
    assert world.directions.shape == (111, 64)
    assert world.directions.norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)
    assert list(world.groups) == list(standard())
    table = world.to_frame()
    for name, where in world.groups.items():
        assert set(table["group"][where]) == {name}
    assert table["name"].is_unique


def test_features_fire_as_often_as_the_world_says(seed):
    world = World(seed=seed)
    fired = (world.rows(ROWS, seed=seed).codes != 0).sum(0).numpy()
    assert happens(fired, ROWS, world.frequency.double().numpy())


def test_coefficients_have_the_size_and_spread_they_are_given(seed):
    _, codes, _ = draw({"tree": tree(), "ones": replace(tree(), size=1.0, spread=0.0), "plain": plain(40)}, seed)
    for name in ("tree", "plain"):
        values = codes[name][codes[name] != 0].astype(float)
        assert values.min() > 0
        assert mean_is(values, 1.5, 0.25)
        assert mean_is((values - 1.5) ** 2, 0.0625, 0.0625 * math.sqrt(2))
    assert set(np.unique(codes["ones"])) == {0.0, 1.0}
    _, codes, _ = draw({"wide": replace(plain(40), spread=9.0)}, seed, n=100)
    assert codes["wide"].min() == 0


def test_seeds_decide_everything_and_the_global_generator_nothing():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    world, rows = World(seed=3, noise=0.1, offset=1.0), World(seed=3, noise=0.1, offset=1.0).rows(50, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = World(seed=3, noise=0.1, offset=1.0)
    assert torch.equal(again.directions, world.directions)
    assert torch.equal(again.offset, world.offset)
    assert torch.equal(again.rows(50, seed=4).acts, rows.acts)
    assert not torch.equal(again.rows(50, seed=5).codes, rows.codes)
    other = World(seed=4, noise=0.1, offset=1.0)
    assert recovery(other.directions[other.groups["plain"]], world.directions[world.groups["plain"]]).rate() == 0
    assert not torch.equal(other.rows(50, seed=4).codes, rows.codes)


def test_to_leave_a_part_out_leaves_the_others_as_they_were():
    parts = standard()
    whole, less = World(parts), World({name: parts[name] for name in reversed(parts) if name != "tree"})
    a, b = whole.rows(100, seed=1).codes, less.rows(100, seed=1).codes
    for name in less.groups:
        assert torch.equal(whole.directions[whole.groups[name]], less.directions[less.groups[name]])
        assert torch.equal(a[:, whole.groups[name]], b[:, less.groups[name]])


def test_batches_go_on_and_are_rows_one_can_draw_again():
    world = World()
    stream = world.batches(64, seed=7)
    batches = [next(stream) for _ in range(3)]
    for i, batch in enumerate(batches):
        assert torch.equal(batch, world.rows(64, seed=(7, i)).acts)
    assert not torch.equal(batches[0], batches[1])
    assert torch.equal(next(world.batches(64, seed=7)), batches[0])
    assert not torch.equal(next(world.batches(64, seed=8)), batches[0])


# --- each kind of part ---------------------------------------------------------------------------------------


def test_mixed_sparsity_is_half_three_half_twenty_of_any_features(seed):
    world, codes, _ = draw({"plain": plain(128, active=(3, 20))}, seed, d=42)
    fires = codes["plain"] != 0
    active = fires.sum(1)
    assert set(active) == {3, 20}
    assert happens((active == 3).sum(), ROWS, 0.5)
    assert world.frequency.numpy() == pytest.approx(11.5 / 128)
    together = fires.T.astype(float) @ fires  # all subsets of a size are equally likely, so all pairs are
    chance = (3 * 2 + 20 * 19) / 2 / (128 * 127)
    assert happens(together[np.triu_indices(128, 1)], ROWS, chance)


@pytest.mark.parametrize(("n", "active", "zipf"), [(64, (1, 4), 1.0), (128, (3, 20), 0.5), (30, (5,), 0.3)])
def test_zipf_frequencies_fall_as_a_power_of_the_rank_with_the_number_of_active_features_exact(seed, n, active, zipf):
    world, codes, _ = draw({"plain": plain(n, active=active, zipf=zipf)}, seed)
    assert set((codes["plain"] != 0).sum(1)) == set(active)
    rank = np.arange(1, n + 1)
    expected = np.mean(active) * rank**-zipf / sum(float(r) ** -zipf for r in rank)
    assert happens((codes["plain"] != 0).sum(0), ROWS, expected)
    assert world.frequency.numpy() == pytest.approx(expected, rel=1e-5)


SHAPES = [((3, 3, 8), (0.2, 0.2, 0.05)), ((2, 4, 3), (0.3, 0.15, 0.1)), ((1, 2, 0), (0.5, 0.5, 0.05))]


@pytest.mark.parametrize(("counts", "p"), SHAPES)
def test_children_need_their_parent_and_exclude_each_other(seed, counts, p):
    chances = dict(zip(("p_parent", "p_child", "p_single"), p, strict=True))
    world, codes, _ = draw({"before": plain(4, active=(2,)), "tree": tree(*counts, **chances)}, seed)
    first = world.groups["tree"].start
    names, parent = world.names[first:], world.parent[first:].numpy()
    fires = codes["tree"] != 0
    assert len(names) == counts[0] * (1 + counts[1]) + counts[2]
    assert world.parent[:first].tolist() == [-1] * 4
    for i, name in enumerate(names):
        _, kind, number = name.split()
        chance = {"parent": p[0], "child": p[0] * p[1], "single": p[2]}[kind]
        assert happens(fires[:, i].sum(), ROWS, chance)
        assert world.frequency[first + i].item() == pytest.approx(chance)
        assert (parent[i] == -1) == (kind != "child")
        assert kind != "child" or world.names[parent[i]] == f"tree parent {number.split('.')[0]}"
    families = set(parent) - {-1}
    assert len(families) == counts[0]
    for above in families:
        it, below = fires[:, above - first], fires[:, parent == above]
        assert below.shape[1] == counts[1]
        assert below.sum(1).max() == 1
        assert not below[~it].any()
        assert happens(below.sum(0), it.sum(), p[1])
        assert happens((it & ~below.any(1)).sum(), it.sum(), 1 - counts[1] * p[1])
    roots = np.flatnonzero(parent == -1)  # families and singles are independent of each other
    pairs = np.triu_indices(len(roots), 1)
    both = fires[:, roots].T.astype(float) @ fires[:, roots]
    expected = world.frequency[first:].double().numpy()[roots]
    assert len(roots) == 1 or happens(both[pairs], ROWS, np.outer(expected, expected)[pairs])


@pytest.mark.parametrize("sibling_cosine", [0.0, 0.3, 0.8])
def test_children_are_orthogonal_to_their_parent_and_as_close_to_each_other_as_asked(seed, sibling_cosine):
    world = World({"tree": tree(sibling_cosine=sibling_cosine)}, d=20, seed=seed)
    v = world.directions.double().numpy()
    children = [i for i, p in enumerate(world.parent.tolist()) if p >= 0]
    for i in children:
        assert abs(v[i] @ v[world.parent[i]]) < 1e-6
    for i, j in itertools.combinations(children, 2):
        if world.parent[i] == world.parent[j]:
            assert v[i] @ v[j] == pytest.approx(sibling_cosine, abs=1e-6)


def test_orthogonal_directions_prefer_no_sign():
    corners = [World({"ring": circle(None)}, d=3, seed=seed).directions.sign() for seed in range(100)]
    assert happens((torch.stack(corners) > 0).sum(0).numpy(), 100, 0.5)


def test_seven_points_lie_evenly_on_a_circle_and_come_equally_often(seed):
    world, codes, rows = draw({"circle": circle(7, p=0.8)}, seed)
    assert np.linalg.svd(world.directions.numpy(), compute_uv=False)[2:].max() < 1e-5
    turns = (world.directions @ world.directions.T).numpy()
    assert turns[0] == pytest.approx(np.cos(2 * np.pi * np.arange(7) / 7), abs=1e-5)
    assert turns[1, 2] == pytest.approx(turns[0, 1], abs=1e-5)  # the next step goes on, not back
    there = codes["circle"].any(1)
    assert happens(there.sum(), ROWS, 0.8)
    assert rows.acts[torch.from_numpy(there)].norm(dim=1).numpy() == pytest.approx(1.5, abs=1e-5)
    assert (codes["circle"] != 0).sum(1).max() == 1
    assert stats.chisquare((codes["circle"][there] != 0).sum(0)).pvalue > ALPHA


def test_the_whole_circle_has_one_radius_and_a_uniform_angle(seed):
    world, codes, rows = draw({"ring": circle(None, p=0.8)}, seed)
    assert (world.directions @ world.directions.T).numpy() == pytest.approx(np.eye(2), abs=1e-6)
    x, y = codes["ring"][codes["ring"].any(1)].T
    assert happens(len(x), ROWS, 0.8)
    assert np.hypot(x, y) == pytest.approx(1.5, abs=1e-5)
    assert stats.kstest(np.arctan2(y, x) / (2 * np.pi) % 1, "uniform").pvalue > ALPHA
    assert torch.linalg.matrix_rank(rows.acts[:500], tol=1e-3) == 2


def irreducibility(points) -> tuple[float, float]:
    """Separability (bits) and mixture of Engels et al., by looking at every direction and every cut of a grid."""
    points = (points - points.mean(0)) / np.sqrt(((points - points.mean(0)) ** 2).sum(1).mean() / 2)
    information, mixture = [], []
    for angle in np.linspace(0, np.pi, 100, endpoint=False):
        a = points @ [np.cos(angle), np.sin(angle)]
        b = points @ [-np.sin(angle), np.cos(angle)]
        joint = np.histogram2d(a, b, bins=10)[0] / len(points)
        apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
        information.append(float((joint[joint > 0] * np.log2(joint[joint > 0] / apart[joint > 0])).sum()))
        width = 0.1 * np.sqrt((a**2).mean())
        cuts = np.sort(a)  # the densest window of 2 width
        mixture.append((np.searchsorted(cuts, cuts + 2 * width, side="right") - np.arange(len(cuts))).max() / len(cuts))
    return min(information), max(mixture)


@pytest.mark.parametrize("points", [7, None])
def test_a_circle_is_irreducible_and_two_features_are_not(seed, points):
    independent, exclusive = law_part(2, ([1, 1], 1.0)), law_part(2, ([1, 0], 0.5), ([0, 1], 0.5))
    parts = {"it": circle(points, p=1.0), "independent": independent, "exclusive": exclusive}
    world, codes, _ = draw(parts, seed, n=3000)
    plane = np.linalg.svd(world.directions[world.groups["it"]].numpy(), full_matrices=False)[2][:2]
    coordinates = codes["it"] @ world.directions[world.groups["it"]].numpy() @ plane.T
    blurred = coordinates + 0.1 * np.random.default_rng(seed).normal(size=coordinates.shape)
    separability, mixture = irreducibility(blurred)
    assert separability > 0.5
    assert mixture < 0.3
    assert irreducibility(codes["independent"])[0] < 0.05  # separable
    assert irreducibility(codes["exclusive"])[1] > 0.4  # a mixture


def law_part(n: int, *ways: tuple[list[int], float]) -> Part:
    """A part of one's own, from a table of who fires with whom."""
    frequency, fire = law((torch.tensor([w for w, _ in ways]).float(), [p for _, p in ways]))
    return Part([f"own {i}" for i in range(n)], lambda d, g: torch.eye(n, d), frequency, fire)


def test_a_part_of_one_s_own_follows_its_table(seed):
    world, codes, _ = draw({"own": law_part(3, ([1, 1, 0], 0.3), ([0, 0, 1], 0.5))}, seed)
    assert world.frequency.numpy() == pytest.approx([0.3, 0.3, 0.5])
    seen, counts = np.unique(codes["own"] != 0, axis=0, return_counts=True)
    assert seen.tolist() == [[False, False, False], [False, False, True], [True, True, False]]
    assert happens(counts, ROWS, np.array([0.2, 0.5, 0.3]))


def test_a_pair_comes_together_two_to_one_with_values_that_do_not_know_each_other(seed):
    _, codes, _ = draw({"pair": pair()}, seed)
    strong, weak = codes["pair"][:, :6], codes["pair"][:, 6:]
    there = strong.any(1)
    assert happens(there.sum(), ROWS, 0.2)
    assert ((strong != 0).sum(1) == there).all()
    assert ((weak != 0).sum(1) == there).all()
    assert mean_is(strong[there].max(1) - 2 * weak[there].max(1), 0, 0.25 * math.sqrt(5))
    table = np.zeros((6, 6))
    np.add.at(table, (strong[there].argmax(1), weak[there].argmax(1)), 1)
    assert stats.chisquare(table.flatten()).pvalue > ALPHA


@pytest.mark.parametrize(("together", "cosine"), [(0.95, 0.0), (0.1, 1.0), (1.0, -0.5), (0.0, 0.99)])
def test_twins_share_their_rows_or_their_direction_as_far_as_asked(seed, together, cosine):
    world, codes, _ = draw({"twins": twins(together=together, cosine=cosine)}, seed)
    first, second = (codes["twins"] != 0).T
    assert happens([first.sum(), second.sum()], ROWS, 0.1)
    assert happens((first & second).sum(), [first.sum(), second.sum()], together)
    a, b = world.directions.double().numpy()
    assert [a @ a, b @ b] == pytest.approx([1, 1], abs=1e-6)
    assert a @ b == pytest.approx(cosine, abs=1e-6)


def test_one_latent_for_a_direction_used_twice_belongs_to_one_feature():
    world = World()
    v = world.directions[world.groups["double"]]
    assert torch.equal(v[0], v[1])
    found = recovery(v, v[:1])
    assert found.best.numpy() == pytest.approx(1, abs=1e-6)
    assert sorted(found.matched.tolist()) == pytest.approx([0, 1], abs=1e-6)
    assert found.latent.tolist().count(-1) == 1
    assert sorted(recovery(v, v).latent.tolist()) == [0, 1]


def test_features_on_neurons_lie_on_axes():
    world = World(seed=5)
    for name, k in (("neuron", 1), ("superposed", 8)):
        (v,) = world.directions[world.groups[name]]
        assert sorted(set(v.tolist())) == pytest.approx([0, k**-0.5])
        assert (v != 0).sum() == k


def probe(x, y, *, steps: int = 25) -> np.ndarray:
    """Class-balanced logistic regression by Newton's method; returns weights and intercept."""
    x = np.column_stack([x, np.ones(len(x))])
    weight = np.where(y, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    w = np.zeros(x.shape[1])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-x @ w))
        gradient = x.T @ (weight * (p - y)) / len(x) + 1e-4 * w
        w -= np.linalg.solve((x.T * (weight * p * (1 - p))) @ x / len(x) + 1e-4 * np.eye(len(w)), gradient)
    return w


def test_one_neuron_tells_the_neuron_feature_and_eight_tell_the_superposed_one():
    scores = []
    for seed in (secrets.randbelow(2**40) for _ in range(5)):
        world = World(seed=seed)
        acts, codes = (t.double().numpy() for t in vars(world.rows(8000, seed=seed)).values())
        for name, k in (("neuron", 1), ("superposed", 1), ("superposed", 8)):
            y = codes[:, world.groups[name].start] != 0
            gap = np.abs(acts[:5000][y[:5000]].mean(0) - acts[:5000][~y[:5000]].mean(0))
            chosen = np.argsort(gap)[-k:]
            w = probe(acts[:5000, chosen], y[:5000])
            said = acts[5000:, chosen] @ w[:-1] + w[-1] > 0
            scores.append(2 * (said & y[5000:]).sum() / (said.sum() + y[5000:].sum()))
            if k == 8:
                assert set(chosen) == set(np.flatnonzero(world.directions[world.groups[name]][0].numpy()))
    # Over 60 worlds the scores had the means .997, .569 and .982 and the deviations .004, .060 and .012, so that the
    # mean of five worlds lies six of its deviations or more within each bound.
    neuron, single, eight = np.reshape(scores, (5, 3)).mean(0)
    assert neuron > 0.95
    assert single < 0.75
    assert eight > 0.95


def test_gelu_of_a_shift_on_eight_neurons_shows_them_by_the_difference_of_means(seed):
    """The synthetic data of Gurnee et al.: noise of one, and eight of many neurons shifted from -1 to +1."""
    shift = replace(neurons(8, p=0.5, size=2 * math.sqrt(8)), spread=0.0)
    world = World({"shift": shift}, d=400, seed=seed, noise=1.0)
    rows = world.rows(4000, seed=seed)
    true = set(world.directions[0].nonzero()[:, 0].tolist())
    lowered = rows.acts.clone()
    lowered[:, list(true)] -= 1
    x = torch.nn.functional.gelu(lowered)
    y = rows.codes[:, 0] != 0
    gap = (x[y].mean(0) - x[~y].mean(0)).abs()
    assert set(gap.topk(8).indices.tolist()) == true


# --- recovery ------------------------------------------------------------------------------------------------


def random_unit(n: int, d: int, rng) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(n, d))).float(), dim=-1)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(("features", "latents"), [(4, 4), (3, 6), (6, 3), (1, 5), (5, 1)])
def test_one_to_one_matching_is_the_best_of_all(seed, signed, features, latents):
    rng = np.random.default_rng(seed)
    true, found = random_unit(features, 3, rng), random_unit(latents, 3, rng)
    cosines = [[sum(a * b for a, b in zip(v, w, strict=True)) for w in found.tolist()] for v in true.tolist()]
    if not signed:
        cosines = [[abs(c) for c in row] for row in cosines]
    few = min(features, latents)
    best = max(
        sum(cosines[i][j] for i, j in zip(rows, columns, strict=True))
        for rows in itertools.combinations(range(features), few)
        for columns in itertools.permutations(range(latents), few)
    )
    result = recovery(true, 3 * found, signed=signed)
    assert float(result.matched.sum()) == pytest.approx(best, abs=1e-5)
    assert result.mcc == pytest.approx(best / features, abs=1e-5)
    assert result.best.tolist() == pytest.approx([max(row) for row in cosines], abs=1e-5)
    for i, j in enumerate(result.latent.tolist()):
        assert float(result.matched[i]) == pytest.approx(cosines[i][j] if j >= 0 else 0, abs=1e-5)
    given = [j for j in result.latent.tolist() if j >= 0]
    assert len(given) == len(set(given)) == few


def test_a_dictionary_is_recognised_in_any_order_and_length_and_with_others_among_it(seed):
    rng = np.random.default_rng(seed)
    true = random_unit(60, 40, rng)
    order = rng.permutation(90)
    mixed = torch.cat([true, random_unit(30, 40, rng)])[order] * torch.from_numpy(rng.uniform(0.1, 9, (90, 1))).float()
    found = recovery(true, mixed.requires_grad_())
    assert order[found.latent.numpy()].tolist() == list(range(60))
    assert found.rate(0.9999) == 1
    assert found.mcc == pytest.approx(1, abs=1e-5)


def test_a_rotated_dictionary_is_not_recognised_unless_the_truth_is_rotated_too(seed):
    rng = np.random.default_rng(seed)
    true = random_unit(60, 40, rng)
    q = torch.linalg.qr(torch.from_numpy(rng.normal(size=(40, 40))).float())[0]
    # A cosine of random directions in d = 40 exceeds .9 with probability below 1e-13 (a beta tail).
    assert stats.beta.sf(0.81, 0.5, 39 / 2) * 60 * 60 < ALPHA
    assert recovery(true, true @ q, signed=False).rate(0.9) == 0
    assert recovery(true @ q, true @ q).rate(0.999) == 1


def test_noise_costs_as_much_cosine_as_it_must(seed):
    rng = np.random.default_rng(seed)
    true, level, d = random_unit(500, 200, rng), 0.5, 200
    noise = torch.from_numpy(rng.normal(size=(500, d)) * level / math.sqrt(d)).float()
    # The noise adds a along the direction and b across it, and the cosine is (1 + a) / sqrt((1 + a)² + b²): around
    # its value at a = 0, b = level it has a deviation of at most level / sqrt(d), and what is left is of order 1/d.
    expected, tolerance = 1 / math.sqrt(1 + level**2), 6 * level / math.sqrt(d * 500) + 1 / d
    assert recovery(true, true + noise).mcc == pytest.approx(expected, abs=tolerance)


def test_a_direction_found_backwards_counts_only_where_signs_do_not():
    true = torch.eye(3)
    backwards = torch.tensor([[-1.0, 0, 0], [0, 1, 0], [0, 0, 0]])
    assert recovery(true, backwards).best.tolist() == [0, 1, 0]  # the row of zeros points nowhere
    assert recovery(true, backwards, signed=False).best.tolist() == [1, 1, 0]
    assert recovery(true, backwards, signed=False).rate(0.9) == pytest.approx(2 / 3)


def test_the_rate_counts_features_above_the_threshold():
    angles = torch.tensor([0.0, 0.3, 0.6, 0.9])
    true = torch.eye(8)[::2]
    found = angles.cos()[:, None] * true + angles.sin()[:, None] * torch.eye(8)[1::2]
    result = recovery(true, found)
    assert result.best.tolist() == pytest.approx(angles.cos().tolist())
    assert [result.rate(tau) for tau in (0.5, 0.7, 0.9, 0.99, 1.0)] == [1.0, 0.75, 0.5, 0.25, 0.0]


# --- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: plain(8, active=(3, 20)), r"each from 1 to 8; got \(3, 20\)"),
        (lambda: plain(8, active=()), r"got \(\)"),
        (lambda: plain(128, zipf=1.0), "zipf=1.0 and 20 of 128 .* would fire 3.68 times"),
        (lambda: tree(parents=-1), "no count below 0.* parents=-1"),
        (lambda: tree(0, 3, 0), "a parent or a single.* parents=0"),
        (lambda: tree(sibling_cosine=1.5), r"in 0\.\.1; got .*sibling_cosine=1.5"),
        (lambda: tree(p_child=0.5), "sum to at most 1; got -0.1"),
        (lambda: circle(2), "at least 3 points, or None for all of it; got 2"),
        (lambda: circle(p=1.2), "which sum to 1.2"),
        (lambda: pair(0), "at least 1, got 0 and 2.0"),
        (lambda: pair(ratio=0.5), "at least 1, got 6 and 0.5"),
        (lambda: twins(cosine=2.0), r"lies in -1\.\.1, got 2.0"),
        (lambda: twins(p=0.7, together=0.0), "which sum to 1.4"),
        (lambda: neurons(p=-0.1), "got -0.1 to -0.1"),
        (lambda: World({"n": neurons(9)}, d=8), r"1 to 8 \(d\) neurons, got k=9"),
        (lambda: World({"t": tree()}, d=4), "5 orthogonal directions, more than there are in d=4; take a larger d"),
        (lambda: World({}), "got 0 parts"),
        (lambda: World(noise=-1.0), "no negative noise or offset; got 9 parts, d=64, noise=-1.0"),
        (lambda: World().rows(0, seed=0), "at least 1 row at a time, got 0"),
        (lambda: next(World().batches(0, seed=0)), "at least 1 row at a time, got 0"),
        (lambda: recovery(torch.eye(3), torch.eye(4)), r"of the same d; got \(3, 3\) and \(4, 4\)"),
        (lambda: recovery(torch.eye(3), torch.ones(3)), r"got \(3, 3\) and \(3,\)"),
        (lambda: recovery(torch.eye(3), torch.zeros(0, 3)), r"got \(3, 3\) and \(0, 3\)"),
        (lambda: recovery(torch.eye(3), torch.full((1, 3), torch.nan)), "NaN and infinity are not allowed"),
    ],
)
def test_bad_input_is_named(as_user, build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()
