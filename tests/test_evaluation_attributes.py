"""Few named scores beside shuffled names and random words, on planted scores and on latents of the shipped model."""

import math
import secrets
from functools import cache

import pytest
import torch
from torch import Tensor

from workbench.evaluation import Concise, concise
from workbench.evaluation.rows import judges

CLASSES, PER_CLASS, WEAK = 8, 2, 80


SEEDS = [secrets.randbelow(2**40) for _ in range(3)]


@pytest.fixture(params=SEEDS)
def seed(request) -> int:
    return request.param


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latents(seed: int, rows: int = 4000) -> tuple[Tensor, Tensor, list[str]]:
    """Sparse scores: two that tell each class, and many that fire a little more with some classes than with others."""
    draw = generator(seed)
    classes = torch.randint(CLASSES, (rows,), generator=draw)
    tells = torch.full((CLASSES, CLASSES), 0.02).fill_diagonal_(0.8).repeat_interleave(PER_CLASS, 1)
    leans = 0.15 + 0.1 * torch.rand(CLASSES, WEAK, generator=draw)
    fires = torch.rand(rows, CLASSES * PER_CLASS + WEAK, generator=draw) < torch.cat([tells, leans], dim=1)[classes]
    scores = fires * (1 + 0.2 * torch.randn(fires.shape, generator=draw)).abs()
    names = [f"tells {i // PER_CLASS}.{i % PER_CLASS}" for i in range(CLASSES * PER_CLASS)]
    return scores, classes, [*names, *(f"leans {i}" for i in range(WEAK))]


@cache
def found_in(seed: int) -> Concise:
    return concise(*latents(seed), numbers=(4, 8, 16), draws=10, seed=seed)


def test_true_labels_are_better_than_shuffled_ones_and_these_than_random_words(seed):
    found = found_in(seed)
    true, shuffled, random = found.true[-1], found.shuffled[-1], found.random[-1]
    assert found.numbers[-1] == 16
    assert true.low > shuffled.high
    assert shuffled.low > random.high
    # One interval in twenty does not hold the truth: as far from it as an interval is wide, one in ten thousand is.
    assert abs(random.value - 1 / CLASSES) <= random.high - random.low
    small = found.smallest(0.95)
    assert len(small) <= 16
    assert all(name.startswith("tells") for name in small[:CLASSES])
    assert found.true[found.numbers.index(len(small))].value >= 0.95 * found.all.value
    assert found.all.value > 0.8


def test_random_words_do_what_a_guess_does_on_average():
    random = [found_in(seed).random[-1] for seed in SEEDS]
    widths = [one.high - one.low for one in random]
    # The mean of three is as far off as its own interval is wide in one case of ten thousand.
    assert abs(sum(one.value for one in random) / 3 - 1 / CLASSES) <= sum(widths) / 3 / 3**0.5


@pytest.mark.slow
def test_sixteen_latents_of_the_shipped_dictionary_tell_the_roles_of_words():
    from workbench.activations import ActivationStore
    from workbench.dictionaries import load_dictionary
    from workbench.language import Language
    from workbench.models import load_model

    dictionary = load_dictionary("tiny/3.resid_post")
    (site,) = dictionary.sites_in
    documents = Language(0).documents(700, seed=secrets.randbelow(2**20))
    store = ActivationStore.collect(load_model("tiny", device="cpu"), documents, [site])
    rows = store.rows(torch.arange(len(store)))
    role = rows.labels["role"]
    common = role.bincount()[1:].topk(8).indices + 1  # 0 is no role
    here = torch.isin(role, common)
    codes = dictionary.encode(rows.acts[site][here]).dense()
    names = [f"latent {i}" for i in range(dictionary.n_features)]
    found = concise(codes, role[here], names, numbers=(16,), draws=10, held_out=rows.doc[here] % 3 == 0)
    assert len(found.smallest(0.95)) <= 16
    assert found.true[-1].low > found.shuffled[-1].high
    assert found.shuffled[-1].low > found.random[-1].high


def test_many_random_words_do_as_well_as_all_attributes_and_few_do_not(seed):
    """The finding of the paper: directions that mean nothing keep what the scores know, if there are enough."""
    scores, classes, names = latents(seed)
    words = scores @ torch.randn(scores.shape[1], 300, generator=generator(seed + 1))
    found = concise(scores, classes, names, numbers=(8, 64), words=words, draws=2)
    assert found.random[1].value > 0.9 * found.all.value
    assert found.random[0].high < found.true[0].low


def test_names_that_mean_nothing_are_no_better_than_their_controls(seed):
    scores, classes, names = latents(seed)
    dealt = classes[torch.randperm(len(classes), generator=generator(seed + 1))]
    found = concise(scores, dealt, names, numbers=(4, 16))
    for rates in zip(found.true, found.shuffled, found.random, strict=True):
        assert max(rate.low for rate in rates) < min(rate.high for rate in rates)
    assert found.true[-1].value < 1 / CLASSES + 0.05


def test_rows_that_judge_are_not_learnt_from(seed):
    """Their classes and scores may be anything: what is chosen, and what the probe says of other rows, is the same."""
    scores, classes, names = latents(seed, rows=1200)
    held_out = torch.arange(1200) % 3 == 0
    one = concise(scores, classes, names, numbers=(1, 8), held_out=held_out, draws=1)
    moved = scores.clone()
    moved[held_out] = 5 * moved[held_out].flip(1)
    other = concise(moved, torch.where(held_out, 0, classes), names, numbers=(1, 8), held_out=held_out, draws=1)
    assert one.chosen == other.chosen
    assert one.true != other.true


def test_the_table_has_every_number_with_both_controls(seed):
    scores, classes, names = latents(seed, rows=800)
    found = concise(scores, classes, names, numbers=(4, 2), draws=2, seed=3)
    frame = found.to_frame()
    assert frame.columns.tolist() == ["number", "labels", "accuracy", "low", "high"]
    assert frame.number.tolist() == [2, 2, 2, 4, 4, 4]
    assert frame.labels.tolist() == ["true", "shuffled", "random words"] * 2
    assert bool(((frame.low <= frame.accuracy) & (frame.accuracy <= frame.high)).all())
    again = concise(scores, classes, names, numbers=(2, 4), draws=2, seed=3)
    assert again == found
    assert len(found.chosen) == 4
    with pytest.raises(ValueError, match=r"No number of attributes tried \(2, 4\) keeps 0\.99 of the accuracy"):
        found.smallest(0.99)


def test_scores_that_do_not_vary_are_neither_chosen_nor_harmful(seed):
    scores, classes, names = latents(seed, rows=600)
    scores[:, 5:] = 0.1
    found = concise(scores, classes, names, numbers=(5, 20), draws=1)
    assert set(found.chosen) == set(names[:5])
    assert found.true[0] == found.true[1]


def test_the_rows_that_judge_are_a_quarter_or_those_given():
    assert int(judges(100, None, 0).sum()) == 25
    assert torch.equal(judges(100, None, 1), judges(100, None, 1))
    assert not torch.equal(judges(100, None, 1), judges(100, None, 2))
    given = torch.arange(100) < 30
    assert judges(100, given, 0) is given


def test_bad_scores_are_refused(as_user):
    scores, classes, names = latents(0, rows=200)
    with pytest.raises(ValueError, match=r"scores \(200, 96\), 199 classes and 96 different names"):
        concise(scores, classes[1:], names)
    with pytest.raises(ValueError, match="95 different names"):
        concise(scores, classes, [*names[1:], names[1]])
    with pytest.raises(ValueError, match=r"words \(100, 96\)"):
        concise(scores, classes, names, words=scores[:100])
    with pytest.raises(ValueError, match="NaN or infinity"):
        concise(scores * math.nan, classes, names)
    with pytest.raises(ValueError, match=r"lie in 1\.\.96, .* got numbers \(0, 4\) and 5 draws"):
        concise(scores, classes, names, numbers=(4, 0))
    with pytest.raises(ValueError, match=r"lie in 1\.\.3, .* got numbers \(4,\)"):
        concise(scores, classes, names, numbers=(4,), words=scores[:, :3])
    with pytest.raises(ValueError, match="0 draws"):
        concise(scores, classes, names, draws=0)
    with pytest.raises(ValueError, match=r"got 1, and 150 rows of the rarest"):
        concise(scores, torch.zeros_like(classes), names)
    with pytest.raises(ValueError, match="Leave out the rows of rare classes"):
        concise(scores, torch.where(torch.arange(200) < 2, 9, classes), names)
