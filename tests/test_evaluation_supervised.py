"""Supervised dictionaries on a task of the built-in language, learnt ones beside them, and planted failures."""

import logging
import random
import re
from functools import cache

import pytest
import torch
from torch import Tensor

from workbench.dictionaries import Dictionary, TopK, load_dictionary
from workbench.evaluation import (
    Labelled,
    Place,
    Prompts,
    approximation,
    control,
    coverage,
    interpret,
    supervise,
    task_scorecard,
)
from workbench.evaluation.interpretation import VALUES
from workbench.language import Language
from workbench.language.lexicon import NAMES
from workbench.language.planted import World, neurons, pair
from workbench.language.splits import Split
from workbench.language.vocabulary import VOCABULARY
from workbench.models import Site, edited, load_model
from workbench.training import TrainConfig, train

SITE = Site(3)
"""Where the tiny model has the answer, and not yet nothing else."""

SEED = random.randrange(2**20)

NAME_IDS = torch.tensor([VOCABULARY[name] for name in NAMES])
GIVER = 4
"""Tokens between the giver and the receiver: "gave a map to"."""


@pytest.fixture(autouse=True)
def _told():
    logging.warning("SEED = %s", SEED)  # shown with a test that fails


def indirect_object(n: int, split: Split, seed: int) -> tuple[Prompts, ...]:
    """Prompts and their counterfactuals, in which the two people change roles: who receives, who gives, and whether the
    receiver was named first."""
    documents = Language(0).documents(n, split=split, seed=seed, families=["indirect_object"])
    tokens, rows, place = documents.tokens, torch.arange(n), torch.arange(documents.tokens.shape[1])
    asked = (documents.labels["slot"].equals("receiver") * place).amax(1)  # the last one in each document
    at = asked - GIVER - 1
    receivers, givers = tokens[rows, asked], tokens[rows, at]
    named = ((tokens == givers[:, None]) & (place < at[:, None])) * place
    first = (tokens[rows, named.amax(1) - 2] == receivers).long()
    swapped = tokens.clone()
    swapped[rows, at] = receivers
    numbers = [(names[:, None] == NAME_IDS).float().argmax(1) for names in (receivers, givers)]
    return tuple(
        Prompts(prompt, asked - 1, answers, foils, {"IO": numbers[i], "S": numbers[1 - i], "Pos": (first + i) % 2})
        for i, (prompt, answers, foils) in enumerate([(tokens, receivers, givers), (swapped, givers, receivers)])
    )


@cache
def places() -> tuple[Place, Place, Place]:
    """Train prompts, and held-out ones with their counterfactuals."""
    model = load_model("tiny", device="cpu")
    seen, _ = indirect_object(500, "train", SEED)
    one, other = indirect_object(100, "test", SEED)
    return Place(model, SITE, seen), Place(model, SITE, one), Place(model, SITE, other)


def of_the_task(frozen: bool) -> Dictionary:
    """A small dictionary, trained for seconds on the activations of the task alone."""
    acts, generator = places()[0].acts, torch.Generator().manual_seed(SEED)
    dictionary = TopK(acts.shape[1], 256, k=8, sites_in=SITE, seed=SEED, frozen=frozen)
    batches = (acts[torch.randint(len(acts), (512,), generator=generator)] for _ in range(300))
    list(train(dictionary, batches, TrainConfig(steps=300, lr=3e-3)))
    return dictionary


# --- a task ---------------------------------------------------------------------------------------------------


def test_supervised_directions_hold_the_task_and_a_trained_dictionary_beats_a_frozen_one():
    card = task_scorecard({"trained": of_the_task(False), "frozen": of_the_task(True)}, *places())
    frame = card.to_frame()
    assert (frame.loc["supervised mean":"supervised least squares", "sufficiency"] >= 0.9).all()
    assert (frame.loc["supervised mean":"supervised least squares", "agreement_2"] >= 0.8).all()
    for score in ("sufficiency", "agreement_4", "agreement_6"):
        assert frame.loc["trained", score] > frame.loc["frozen", score] + 0.1
    assert frame.loc["supervised mean", "f1"] == 1
    assert frame.loc["supervised mean", "by_meaning_6"] >= 0.9
    assert card.scores["trained"].control.unedited < 0.1
    assert frame.loc["trained", "found"] > frame.loc["frozen", "found"]


def test_approximation_and_control_are_what_a_naive_version_finds():
    seen, one, other = places()
    dictionary, mean = load_dictionary("tiny/3.resid_post"), seen.acts.mean(0)
    rows, at = torch.arange(len(one.acts)), one.prompts.ends

    def says(acts: Tensor) -> Tensor:
        def edit(there, context):
            there[rows, at] = acts
            return there

        with torch.no_grad(), edited(one.model, {SITE: edit}):
            return one.model(one.prompts.tokens)[rows, at]

    def difference(acts: Tensor) -> float:
        said = says(acts)
        return float((said[rows, one.prompts.answers] - said[rows, one.prompts.foils]).mean())

    found = approximation(dictionary, one, mean)
    clean, ablated = difference(one.acts), difference(mean.expand_as(one.acts))
    assert (found.clean, found.ablated) == pytest.approx((clean, ablated), rel=1e-4)
    rebuilt = dictionary(one.acts)
    assert found.sufficiency == pytest.approx((difference(rebuilt) - ablated) / (clean - ablated), abs=1e-3)
    left = difference(mean + one.acts - rebuilt)
    assert found.necessity == pytest.approx((clean - left) / (clean - ablated), abs=1e-3)

    edits, magnitudes, bias = [], [], dictionary.decode(dictionary.encode(one.acts)) * 0
    codes, wanted = (dictionary.encode(side.acts).dense() for side in (one, other))
    W_dec = dictionary.W_dec
    bias = (dictionary(one.acts) - codes @ W_dec)[0]
    for z, target, a, goal in zip(codes, wanted, one.acts, other.acts, strict=True):
        used: set[int] = set()
        for _ in range(4):
            tries = {j: (goal - a - (target[j] - z[j]) * W_dec[j]).norm() for j in range(len(z)) if z[j] != target[j]}
            j = min(tries.keys() - used, key=tries.__getitem__)
            if tries[j] >= (goal - a).norm():
                break
            used.add(j)
            a = a + (target[j] - z[j]) * W_dec[j]
        edits.append(a)
        shares = [
            sum(float(c[j] * W_dec[j] @ (c @ W_dec)) for j in used) / float((c @ W_dec).square().sum())
            for c in (z, target)
        ]
        magnitudes.append(sum(shares) / 2)
    assert torch.allclose(bias + codes @ W_dec, rebuilt, atol=1e-4)
    result = control(dictionary, one, other, train=seen.labelled, k=(4,))
    truth = says(other.acts).argmax(1)
    assert result.agreement.item() == pytest.approx((says(torch.stack(edits)).argmax(1) == truth).float().mean())
    assert result.magnitude.item() == pytest.approx(sum(magnitudes) / len(magnitudes), rel=1e-3)
    assert result.to_frame().shape == (1, 5)


def test_all_features_of_a_perfect_dictionary_are_the_true_swap():
    seen, one, other = places()
    result = control(supervise(seen.labelled), one, other, train=seen.labelled, k=(1, 6))
    assert result.magnitude[1] == pytest.approx(1, abs=0.05)  # all that differs, beside which way round the names were
    assert result.agreement[0] + 0.1 < result.agreement[1]
    assert result.agreement[1] >= 0.9  # of 100 prompts one may be as good as undecided


def test_features_named_by_what_they_mean_do_what_they_mean():
    seen, one, _ = places()
    dictionary, mean = of_the_task(False), seen.acts.mean(0)
    meanings = interpret(dictionary, seen.labelled, one.labelled)
    named = meanings.above(0.8)
    scores = [approximation(dictionary, one, mean, features=f).sufficiency for f in (named, ~named)]
    assert scores[0] > 0.5
    assert scores[0] > scores[1]
    assert 0 < named.sum() < len(named)
    words = {"IO": NAMES, "S": NAMES, "Pos": ("second", "first")}
    frame = interpret(dictionary, seen.labelled, one.labelled, words=words).to_frame()
    assert frame["f1"].dropna().is_monotonic_decreasing
    said = frame.loc[frame["kind"] == "value", "words"]
    assert all(re.fullmatch(r"(IO|S) = [A-Z]\w+|Pos = (first|second)", one) for one in said)


# --- planted --------------------------------------------------------------------------------------------------


def labelled(n: int, values: dict[str, int], *, d: int = 24, seed: int = SEED) -> Labelled:
    """Rows that are sums of a direction for a value of each attribute, the values drawn one by one."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randint(many, (n,), generator=generator) for name, many in values.items()}
    directions = {name: torch.randn(many, d, generator=generator) for name, many in values.items()}
    return Labelled(torch.stack([directions[name][v] for name, v in drawn.items()]).sum(0) + 1.0, drawn)


def test_least_squares_rebuilds_what_dependent_attributes_add_up_to():
    rows = labelled(600, {"a": 5, "b": 4})
    both = rows.attributes["a"] == 1  # the first value of b is then far more frequent
    kept = ~both | (rows.attributes["b"] == 0)
    rows = Labelled(rows.acts[kept], {name: v[kept] for name, v in rows.attributes.items()})
    errors = [
        float((supervise(rows, estimator=how).rebuild(rows.attributes) - rows.acts).square().mean())
        for how in ("mean", "least squares")
    ]
    assert errors[1] < 1e-8 < 1e-2 < errors[0]
    mean = supervise(rows)
    naive = rows.acts[rows.attributes["a"] == 3].mean(0) - rows.acts.mean(0)
    assert torch.allclose(mean.vectors["a"][3], naive, atol=1e-5)
    assert torch.allclose(mean.rebuild({"a": torch.tensor([-1]), "b": torch.tensor([-1])})[0], mean.bias)


def given(n: int) -> Dictionary:
    """A dictionary for which each input is its own code."""
    dictionary = TopK(n, n, k=n)
    dictionary.W_enc.data, dictionary.W_dec.data = torch.eye(n), torch.eye(n)
    return dictionary


def test_the_best_meaning_is_that_of_all_that_there_are():
    generator = torch.Generator().manual_seed(SEED)
    rows = labelled(300, {"a": 7, "b": 3})
    a, b = rows.attributes["a"], rows.attributes["b"]
    active = (torch.rand(300, 6, generator=generator) < torch.rand(7, 6, generator=generator)[a]).float()
    active[:, 0] = ((a == 2) & (b == 1)).float()
    active[:, 1] = ((a == 3) | (a == 5) | (a == 6)).float()
    active[:, 2] = (b == 2).float()
    same = Labelled(active, rows.attributes)
    found = interpret(given(6), same, same).meanings
    assert [(m.kind, m.words) for m in found[:3]] == [
        ("both", "a = 2 & b = 1"),
        ("any", "a = 3 | 5 | 6"),
        ("value", "b = 2"),
    ]
    unions = [{v for v in range(7) if mask >> v & 1} for mask in range(1, 128)]
    predicates = [torch.isin(a, torch.tensor([*union])) for union in unions]
    predicates += [b == v for v in range(3)] + [(b == 0) | (b == 1), (b == 0) | (b == 2), (b == 1) | (b == 2), b >= 0]
    predicates += [(a == v) & (b == w) for v in range(7) for w in range(3)]
    for meaning, fires in zip(found, active.T.bool(), strict=True):
        naive = max(2 * float((p & fires).sum()) / float(p.sum() + fires.sum()) for p in predicates)
        assert meaning.train == pytest.approx(naive, abs=1e-5)
        assert meaning.f1 == pytest.approx(meaning.train, abs=1e-5)


def test_a_union_has_ten_values_at_most():
    a = torch.arange(400) % 20
    rows = Labelled(torch.stack([(a < 14).float(), (a < 9).float()], 1), {"a": a})
    large, small = interpret(given(2), rows, rows).meanings
    assert len(large.words.split("|")) == VALUES
    assert large.f1 == pytest.approx(20 / 24)
    assert small.f1 == 1


def learnt(world: World, n: int, k: int, steps: int, lr: float = 3e-3) -> Dictionary:
    dictionary = TopK(world.d, n, k=k, seed=SEED)
    list(train(dictionary, world.batches(512, seed=SEED), TrainConfig(steps=steps, lr=lr, dead_tokens=20_000)))
    return dictionary


def drawn(world: World, groups: dict[str, slice]) -> list[Labelled]:
    """Two draws of a world, with which of the features in each group is active: none is -1."""
    found = []
    for draw in (1, 2):
        rows = world.rows(3000, seed=(SEED, draw))
        active = {name: rows.codes[:, group] != 0 for name, group in groups.items()}
        found.append(
            Labelled(rows.acts, {n: torch.where(on.any(1), on.float().argmax(1), -1) for n, on in active.items()})
        )
    return found


def test_a_weak_attribute_is_occluded_by_one_that_comes_with_it():
    world = World({"pair": pair(6, p=0.5)}, d=16, seed=SEED)
    rows = drawn(world, {"strong": slice(0, 6), "weak": slice(6, 12)})
    small, roomy = (
        coverage(learnt(world, n, k, steps, lr), *rows).to_frame().set_index("attribute")
        for n, k, steps, lr in ((6, 1, 300, 3e-3), (24, 2, 600, 1e-2))
    )
    weak = small.loc["weak"]
    assert (weak["best"] < 0.6).all()
    assert (weak["readable"] > 0.9).all()
    assert (weak["verdict"] == "occluded").all()
    assert small.loc["strong", "best"].mean() > weak["best"].mean() + 0.2
    assert roomy.loc["weak", "best"].mean() > weak["best"].mean() + 0.2  # where there is room for both
    assert set(coverage(supervise(rows[0]), *rows).verdict) == {"found"}


def test_a_binary_feature_at_sixteen_times_the_width_is_split():
    world = World({"binary": neurons(1, p=0.3, size=1.5)}, d=8, seed=SEED, noise=0.2)
    rows = drawn(world, {"binary": slice(0, 1)})
    wide, *narrow = (coverage(learnt(world, n, k, 400), *rows) for n, k in ((16 * 8, 1), (4, 2), (8, 1)))
    assert wide.verdict == ("split",)
    assert wide.best[0] < 0.7
    assert wide.together[0] > 0.9
    assert len(wide.features[0]) >= 3
    assert ("found",) in [one.verdict for one in narrow]  # one start in some ten misses the only direction there is
    assert coverage(supervise(rows[0]), *rows).verdict == ("found",)


# --- what is refused ------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused(as_user):
    rows = labelled(50, {"a": 3})
    with pytest.raises(ValueError, match=r"one whole number per row, from 0, or -1 for none; 'a' has shape \(3,\)"):
        Labelled(rows.acts, {"a": torch.zeros(3, dtype=torch.long)})
    with pytest.raises(ValueError, match=r"for 50 rows"):
        Labelled(rows.acts, {"a": torch.full((50,), -2)})
    with pytest.raises(ValueError, match="estimator is one of 'mean', 'least squares', got 'median'"):
        supervise(rows, estimator="median")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="1 or more attributes, got 50 and 0"):
        supervise(Labelled(rows.acts, {}))
    with pytest.raises(ValueError, match="attributes that these rows lack: a"):
        supervise(rows).rebuild({"b": torch.zeros(2, dtype=torch.long)})
    with pytest.raises(ValueError, match="had a = 7; make it of rows with every value"):
        supervise(rows).rebuild({"a": torch.tensor([0, 7])})
    same = Labelled(rows.acts, {"b": torch.zeros(50, dtype=torch.long)})
    with pytest.raises(ValueError, match="'b' has the same value on all train rows"):
        coverage(supervise(same), same, same)


def test_a_place_that_does_not_decide_the_task_is_refused(as_user):
    seen, one, other = places()
    early = [Place(place.model, Site(0, "attn_out"), place.prompts) for place in (seen, one)]
    with pytest.raises(ValueError, match=r"at '0\.attn_out' the logit difference is .* does not decide the task"):
        approximation(supervise(early[0].labelled), early[1], early[0].acts.mean(0))
    with pytest.raises(ValueError, match=r"'1\.pattern' has no activation of a token"):
        Place(one.model, Site(1, "pattern"), one.prompts)
    with pytest.raises(ValueError, match="Only a dictionary that rebuilds the one site it reads"):
        approximation(load_dictionary("tiny/3.transcoder"), one, seen.acts.mean(0))
    with pytest.raises(ValueError, match="k lists numbers of features, each at least 1"):
        control(supervise(seen.labelled), one, other, train=seen.labelled, k=(0,))
    with pytest.raises(ValueError, match="100 sources and 500 targets"):
        control(supervise(seen.labelled), one, seen, train=seen.labelled)
    p = one.prompts
    with pytest.raises(ValueError, match="There are 100 prompts, but 500 foils"):
        Prompts(p.tokens, p.ends, p.answers, seen.prompts.foils, p.attributes)
