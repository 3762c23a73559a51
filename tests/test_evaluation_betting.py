"""Bets on what matters: every game against a naive one, its promise over many runs, and what it must refuse."""

import doctest
import math
import secrets

import numpy as np
import pytest
import torch

from workbench.evaluation import bet_conditionally, bet_globally, bet_locally, betting, intervals, rate
from workbench.language.planted import World, plain

ALPHA = 0.05
RUNS = 200


@pytest.fixture(params=[secrets.randbelow(2**40) for _ in range(2)])
def seed(request) -> int:
    return request.param


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table(seed: int, rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=generator(seed))


# --- against a naive game ------------------------------------------------------------------------------------------


def near(u, v, past) -> float:
    """The Gaussian kernel of two vectors, as wide as the past vectors spread."""
    spread = sum((vector - np.mean(past, axis=0)) @ (vector - np.mean(past, axis=0)) for vector in past) / len(past)
    return math.exp(-((u - v) @ (u - v)) / (2 * spread)) if spread > 0 else 1.0


def naive_global(y, z) -> list[float]:
    found = []
    for now in range(2, len(y), 2):
        ys, zs = y[:now], z[:now]

        def witness(one, other, ys=ys, zs=zs):
            joint = np.mean([near(one, a, ys) * near(other, b, zs) for a, b in zip(ys, zs, strict=True)])
            return joint - np.mean([near(one, a, ys) for a in ys]) * np.mean([near(other, b, zs) for b in zs])

        (y1, y2), (z1, z2) = y[now : now + 2], z[now : now + 2]
        found.append(witness(y1, z1) + witness(y2, z2) - witness(y1, z2) - witness(y2, z1))
    return [0.0, *found]


def naive_conditional(y, z, drawn, rest) -> list[float]:
    """Of a concept z [row, 1], its draws, and the other concepts."""
    found = []
    for now in range(1, len(y)):
        ys, zs, others = y[:now], z[:now], rest[:now]

        def witness(score, now=now, ys=ys, zs=zs, others=others):
            def mean(scores):
                return np.mean(
                    [
                        near(y[now], ys[i], ys) * near(rest[now], others[i], others) * near(score, scores[i], zs)
                        for i in range(now)
                    ]
                )

            return mean(zs) - mean(drawn[:now])

        found.append(witness(z[now]) - witness(drawn[now]))
    return [0.0, *found]


def naive_local(a, b) -> list[float]:
    found = []
    for now in range(1, len(a)):
        both = np.concatenate([a[:now], b[:now]])

        def witness(output, now=now, both=both):
            return np.mean([near(output, one, both) for one in a[:now]]) - np.mean(
                [near(output, one, both) for one in b[:now]]
            )

        found.append(witness(a[now]) - witness(b[now]))
    return [0.0, *found]


def naive_wealth(witnesses) -> list[float]:
    bet, curvature, wealth, path, past = 0.0, 1.0, 1.0, [], []
    for witness in witnesses:
        scale = np.sqrt(np.mean(np.square(past))) if past else 0.0
        payoff = math.tanh(witness / scale) if scale > 0 else 0.0
        past.append(witness)
        wealth *= 1 + bet * payoff
        path.append(math.log(wealth))
        slope = payoff / (1 + bet * payoff)
        curvature += slope**2
        bet = min(max(bet + 2 / (2 - math.log(3)) * slope / curvature, 0.0), 0.5)
    return path


def test_every_game_is_the_naive_one(seed):
    y, z, drawn = (table(seed + i, 16, n).double() for i, n in enumerate([2, 3, 3]))
    y[:, :1] += 2 * z[:, :1]
    found = bet_globally(y, z).log_wealth
    by_hand = [naive_wealth(naive_global(y.numpy(), z[:, i : i + 1].numpy())) for i in range(3)]
    assert found.T.numpy() == pytest.approx(np.array(by_hand), abs=1e-9)

    found = bet_conditionally(y, z, lambda scores, i: drawn[:, i]).log_wealth
    rest = [[j for j in range(3) if j != i] for i in range(3)]
    parts = [[t.numpy() for t in (y, z[:, [i]], drawn[:, [i]], z[:, rest[i]])] for i in range(3)]
    assert found.T.numpy() == pytest.approx(np.array([naive_wealth(naive_conditional(*p)) for p in parts]), abs=1e-9)

    a, b = (table(seed + i, 16, 6).reshape(16, 3, 2).double() for i in (7, 8))
    found = bet_locally(a + 1, b).log_wealth
    by_hand = [naive_wealth(naive_local(a[:, i].numpy() + 1, b[:, i].numpy())) for i in range(3)]
    assert found.T.numpy() == pytest.approx(np.array(by_hand), abs=1e-9)
    assert found.abs().max() > 0.01


# --- why it is fair -------------------------------------------------------------------------------------------------


def games(seed: int, rows: int = 40):
    """Each game as a function of the truth, what it is exchanged with, and the rows of a round."""
    y = table(seed, rows, 2)
    z, other = table(seed + 1, rows, 3) + y[:, :1], table(seed + 2, rows, 3)

    def globally(z, _other):
        return bet_globally(y, z)

    def conditionally(z, other):
        return bet_conditionally(y, z, lambda scores, i: other[:, i])

    def locally(z, other):
        return bet_locally(z[..., None], other[..., None])

    return {"globally": globally, "conditionally": conditionally, "locally": locally}, z, other


@pytest.mark.parametrize("game", ["globally", "conditionally", "locally"])
def test_what_is_exchanged_pays_the_opposite_and_the_future_pays_nothing(game, seed):
    played, z, other = games(seed)
    play, size = played[game], 2 if game == "globally" else 1
    last = 30 // size
    before = play(z, other).log_wealth
    z_new, other_new = z.clone(), other.clone()
    now = slice(size * last, size * last + size)
    if size == 2:
        z_new[now] = z[now].flip(0)
    else:
        z_new[now, 0], other_new[now, 0] = other[now, 0], z[now, 0]
    z_new[now.stop :] += 5
    after = play(z_new, other_new).log_wealth
    assert torch.equal(after[:last], before[:last])
    gains = [(path[last] - path[last - 1]).exp() - 1 for path in (before, after)]
    one = slice(None) if size == 2 else slice(1)  # the concepts that were exchanged
    assert torch.allclose(gains[0][one], -gains[1][one], atol=1e-12)
    assert before.diff(dim=0).exp().sub(1).abs().max() <= 0.5


def test_null_concepts_are_rejected_no_more_often_than_promised():
    false = []
    for i in range(RUNS):
        start = secrets.randbelow(2**40)
        y, z = table(start, 120, 3), table(start + 1, 120, 10)
        z[:, 5:] = z[:, 5:].clamp_min(1) - 1 + 50 * (i % 2)  # latents: mostly silent, and far from 0 in half the runs
        false.append((bet_globally(y, z).rejected > 0).double().mean())
    assert torch.stack(false).mean() <= ALPHA


def shared(rows: int, concepts: int, start: int):
    """Scores with a common cause, the sampler that is exact for them, and outputs of the first alone."""
    draw = generator(start)
    z = torch.randn(rows, concepts, generator=draw) + torch.randn(rows, 1, generator=draw)

    def sampler(scores, i):
        rest = scores.sum(1) - scores[:, i]
        return rest / concepts + math.sqrt(1 + 1 / concepts) * torch.randn(len(scores), generator=draw)

    return z, sampler, z[:, :1] + 0.5 * torch.randn(rows, 2, generator=draw)


def test_concepts_that_matter_through_others_only_are_rejected_no_more_often_than_promised():
    false, globally = [], []
    for _ in range(RUNS):
        z, sampler, y = shared(60, 6, secrets.randbelow(2**40))
        false.append((bet_conditionally(y, z, sampler, alpha=ALPHA).rejected[1:] > 0).double().mean())
    for _ in range(5):
        z, sampler, y = shared(600, 6, secrets.randbelow(2**40))
        assert bet_conditionally(y[:300], z[:300], sampler).rejected[0] > 0
        globally.append((bet_globally(y, z).rejected[1:] > 0).double().mean())
    assert torch.stack(false).mean() <= ALPHA
    assert torch.stack(globally).mean() > 0.8  # without the others given, they matter


def test_local_concepts_that_change_nothing_are_rejected_no_more_often_than_promised():
    start = secrets.randbelow(2**40)
    known, unknown = (table(start + i, 200, 2 * (RUNS + 2)).reshape(200, -1, 2) for i in range(2))
    known[:, 0] += 0.7  # another mean
    known[:, 1] *= 2  # the same mean, another spread
    rejected = bet_locally(known, unknown).rejected > 0
    assert rejected[2:].double().mean() <= ALPHA
    assert bool(rejected[:2].all())


# --- what it finds --------------------------------------------------------------------------------------------------


def test_causal_latents_are_rejected_in_time_and_before_weakly_related_ones(seed):
    rows = 1000
    world = World({"causal": plain(4, active=(1, 2)), "null": plain(12, active=(1, 3, 5))}, d=24, seed=seed)
    times, false = [], []
    for run in range(5):
        codes = world.rows(rows, seed=(seed, run)).codes
        causal, null = codes[:, :4], codes[:, 4:]
        draw = generator(seed + run)
        own = torch.randn(codes[:, :4].shape, generator=draw)
        weak = 0.3 * causal + own * causal.std(0)
        outputs = causal @ torch.randn(4, 4, generator=draw) + 0.2 * torch.randn(rows, 4, generator=draw)
        found = bet_globally(outputs, torch.cat([causal, weak, null], dim=1), alpha=ALPHA)
        times.append(torch.where(found.rejected > 0, found.rejected, rows).double())
        false.append((found.rejected[8:] > 0).double().mean())
        assert bool((found.rejected[:4] > 0).all())
        assert bool((found.discovered[:4] > 0).all())
    mean = torch.stack(times).mean(0)
    assert bool((mean[:4] < mean[4:8]).all())
    assert mean[:4].max() < mean[8:].min()


def test_many_concepts_are_tested_at_once(seed):
    y = table(seed, 300, 4)
    z = torch.cat([y, table(seed + 1, 300, 196)], dim=1)
    together, alone = bet_globally(y, z), bet_globally(y, z[:, 3:5])
    assert torch.allclose(together.log_wealth[:, 3:5], alone.log_wealth, atol=1e-9)
    assert bool((together.discovered[:4] > 0).all())  # of so many nulls, one may well be rejected as soon


# --- discoveries among many ------------------------------------------------------------------------------------------


def false_share(found: torch.Tensor, true: int) -> float:
    return float((found[true:] > 0).sum() / (found > 0).sum().clamp_min(1))


def test_discoveries_are_false_no_more_often_than_promised(seed):
    """Of null concepts that depend on each other, beside ones that matter."""
    alpha, shares, power = 0.2, [], []
    for run in range(30):
        draw = generator(seed + run)
        z = torch.randn(300, 20, generator=draw)
        z[:, 5:] += torch.randn(300, 1, generator=draw)
        y = z[:, :5] + 0.5 * torch.randn(300, 5, generator=draw)
        found = bet_globally(y, z, alpha=alpha).discovered
        shares.append(false_share(found, 5))
        power.append(float((found[:5] > 0).double().mean()))
    assert np.mean(shares) <= alpha
    assert np.mean(power) > 0.8


def test_discoveries_keep_the_promise_where_rejections_one_by_one_do_not(seed):
    """In the harshest fair game, coins: half of the wealth on each, and nulls in groups that share theirs."""
    alpha, discovered, rejected = 0.2, [], []
    for run in range(200):
        draw = generator(seed + run)
        heads = torch.rand(120, 5, generator=draw) < 0.75
        coins = (torch.rand(120, 15, generator=draw) < 0.5).repeat_interleave(3, dim=1)
        paths = torch.where(torch.cat([heads, coins], dim=1), 1.5, 0.5).double().log().cumsum(0)
        discovered.append(false_share(betting._discoveries(paths, alpha), 5))
        rejected.append(false_share((paths >= -math.log(alpha)).any(0).int(), 5))
    assert np.mean(discovered) <= alpha < np.mean(rejected)


def test_discoveries_are_those_of_a_naive_count(seed):
    paths = table(seed, 60, 12).double().mul(0.7).cumsum(0) + torch.linspace(-0.1, 0.1, 12) * torch.arange(60)[:, None]
    alpha, n = 0.1, 12
    when, kept = [0] * n, {}
    for rounds, wealth in enumerate(paths.exp().tolist(), 1):
        now = {i: kept.get(i, wealth[i]) for i in range(n)}
        for k in range(n, 0, -1):
            good = {i for i in range(n) if now[i] >= n / (alpha * k)}
            if len(good) >= k:
                for i in good - set(kept):
                    when[i], kept[i] = rounds, wealth[i]
                break
    assert betting._discoveries(paths, alpha).tolist() == when
    assert any(when)
    assert all(wealth >= n / (alpha * len(kept)) for wealth in kept.values())


def test_the_frame_ranks_by_the_round_of_rejection(seed):
    y = table(seed, 400, 3)
    z = torch.cat([table(seed + 1, 400, 3), y[:, :1], y[:, 1:2] + 1.5 * table(seed + 2, 400, 1)], dim=1)
    found = bet_globally(y, z)
    frame = found.to_frame()
    assert frame.columns.tolist() == ["concept", "rejected", "discovered", "log_wealth"]
    assert frame.concept.tolist() == found.ranking.tolist()
    assert sorted(frame.concept) == list(range(5))
    rejected = frame.rejected[frame.rejected > 0].tolist()
    assert rejected == sorted(rejected) == frame.rejected[: len(rejected)].tolist()
    never = frame.log_wealth[frame.rejected == 0].tolist()
    assert never == sorted(never, reverse=True)
    assert frame.concept[0] == 3
    for concept, rounds in enumerate(found.rejected.tolist()):
        if rounds:
            assert found.log_wealth[rounds - 1, concept] >= math.log(1 / 0.05)
            assert found.log_wealth[: rounds - 1, concept].max() < math.log(1 / 0.05)


def test_what_does_not_vary_is_not_bet_on(seed):
    found = bet_globally(table(seed, 60, 2), torch.full((60, 1), 0.1))
    assert bool((found.log_wealth == 0).all())
    z = torch.cat([torch.full((60, 1), 0.1), table(seed + 1, 60, 1)], dim=1)
    drawn = bet_conditionally(table(seed, 60, 2), z, lambda scores, i: scores[:, i])
    assert bool((drawn.log_wealth == 0).all())  # a draw like the truth says nothing


# --- what it refuses ------------------------------------------------------------------------------------------------


def test_bad_bets_are_refused(as_user):
    y, z = torch.randn(10, 2), torch.randn(10, 3)
    with pytest.raises(ValueError, match=r"each of 4 or more rows; got outputs \(9, 2\) and scores \(10, 3\)"):
        bet_globally(y[:9], z)
    with pytest.raises(ValueError, match="4 or more rows"):
        bet_globally(y[:3], z[:3])
    with pytest.raises(ValueError, match="at least one score"):
        bet_globally(y, z[:, :0])
    with pytest.raises(ValueError, match="NaN or infinity"):
        bet_globally(y, torch.full((10, 3), math.nan))
    with pytest.raises(ValueError, match=r"between 0 and 1; got 1\.5"):
        bet_globally(y, z, alpha=1.5)
    with pytest.raises(ValueError, match=r"for each row, \[10\]; for concept 0 it gave \[4\]"):
        bet_conditionally(y, z, lambda scores, i: scores[:4, i])
    with pytest.raises(ValueError, match="with NaN or infinity"):
        bet_conditionally(y, z, lambda scores, i: scores[:, i] / 0)
    with pytest.raises(ValueError, match=r"as many draws with a concept as without; got \(5, 3, 1\) and \(4, 3, 1\)"):
        bet_locally(torch.randn(5, 3, 1), torch.randn(4, 3, 1))


# --- intervals ------------------------------------------------------------------------------------------------------


def test_the_examples_hold():
    assert doctest.testmod(intervals, optionflags=doctest.ELLIPSIS).failed == 0


def test_an_interval_of_one_draw_is_wilson_s(seed):
    from scipy.stats import binomtest

    for p in (0.0, 0.3, 0.97, 1.0):
        hits = torch.rand(1, 80, generator=generator(seed)) < p
        found = rate(hits, level=0.9)
        other = binomtest(int(hits.sum()), 80).proportion_ci(0.9, method="wilson")
        assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=1e-12)
        assert found.value == pytest.approx(float(hits.double().mean()))


@pytest.mark.parametrize("draws", [1, 5])
def test_intervals_hold_the_truth_as_often_as_they_say(draws, seed):
    """Also where draws differ, and rows are hard or easy in all of them."""
    draw, held = generator(seed), 0
    for _ in range(600):
        p = (
            0.7
            + 0.1 * torch.randn(draws, 1, generator=draw) * (draws > 1)
            + 0.4 * (torch.rand(1, 150, generator=draw) - 0.5)
        )
        found = rate(torch.rand(draws, 150, generator=draw) < p)
        held += found.low <= 0.7 <= found.high
    assert held / 600 > 0.9


def test_draws_that_do_not_differ_are_as_sure_as_one():
    hits = torch.tensor([[True, False, True, True]])
    assert rate(torch.tensor([[True, False], [False, True]])) == rate(torch.tensor([[True, False]]))
    assert rate(torch.ones(3, 4, dtype=torch.bool)) == rate(torch.ones(1, 4, dtype=torch.bool))
    one, many = rate(hits), rate(hits.expand(50, 4))
    assert many.high - many.low > 0.8 * (one.high - one.low)
    assert 0 <= rate(hits.T).low < 0.75 < rate(hits.T).high <= 1


def test_a_rate_of_nothing_is_refused(as_user):
    with pytest.raises(ValueError, match="at least one hit or miss"):
        rate(torch.zeros(1, 0, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"a level in 0\.\.1; got 3 and 2"):
        rate(torch.ones(1, 3, dtype=torch.bool), level=2)
