"""Labelled and unlabelled parts of outputs: withheld attributes come back, and every step is the naive one."""

import math
import secrets

import pytest
import torch
from torch import Tensor

from workbench.evaluation import elude
from workbench.evaluation.search import forward
from workbench.language.planted import World, plain


@pytest.fixture(params=[secrets.randbelow(2**40) for _ in range(3)])
def seed(request) -> int:
    return request.param


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1].abs())


ATTRIBUTES = 10


def model_of(seed: int, rows: int = 2000):
    """Attributes that are there or not, activations of features that carry them, and outputs of the attributes."""
    world = World({"attribute": plain(ATTRIBUTES, active=(1, 2, 3, 4))}, d=32, seed=seed, noise=0.1, offset=3.0)
    planted = world.rows(rows, seed=seed)
    attributes = (planted.codes > 0).float()
    draw = generator(seed)
    return attributes, planted.acts, attributes @ torch.randn(ATTRIBUTES, 6, generator=draw) + 2, draw


def test_a_withheld_attribute_is_missed_and_recovered_by_a_remainder_of_rank_1(seed):
    attributes, acts, outputs, draw = model_of(seed)
    outputs = outputs + 0.3 * torch.randn(outputs.shape, generator=draw)
    held_out = torch.rand(len(acts), generator=draw) < 0.25
    full = elude(attributes, acts, outputs, rank=1, held_out=held_out)
    for i in range(ATTRIBUTES):
        rest = attributes[:, [j for j in range(ATTRIBUTES) if j != i]]
        found = elude(rest, acts, outputs, rank=1, held_out=held_out)
        assert found.labelled < full.labelled
        assert found.shares[1] > found.labelled + 0.5 * (full.labelled - found.labelled)
        assert correlation(found.features(acts)[held_out, 0], attributes[held_out, i]) >= 0.9


def test_unlabelled_features_explain_another_model(seed):
    attributes, acts, outputs, draw = model_of(seed)
    other = attributes @ torch.randn(ATTRIBUTES, 9, generator=draw)
    found = elude(attributes[:, 1:], acts, outputs, rank=1)
    moved = elude(attributes[:, 1:], found.features(acts), other)
    own = elude(attributes[:, 1:], acts, other, rank=1)
    anything = elude(attributes[:, 1:], acts @ torch.randn(32, 1, generator=draw), other)
    assert moved.shares.shape == (2,)
    assert moved.shares[1] - moved.labelled > 0.8 * (own.shares[1] - own.labelled)
    assert anything.shares[1] - anything.labelled < 0.5 * (own.shares[1] - own.labelled)


def test_few_attributes_are_chosen_and_those_that_matter(seed):
    draw = generator(seed)
    attributes = (torch.rand(1500, 40, generator=draw) < 0.3).float()
    true = torch.randn(5, 6, generator=draw)
    outputs = attributes[:, :5] @ true + 0.5 * torch.randn(1500, 6, generator=draw)
    found = elude(attributes, torch.randn(1500, 8, generator=draw), outputs)
    chosen = found.weights.any(1)
    assert bool(chosen[:5].all())
    assert int(chosen[5:].sum()) <= 4  # of 35
    assert torch.allclose(found.weights[:5], true, atol=0.25)
    assert found.shares.diff().abs().max() < 0.02  # nothing is left that the activations know


def test_labels_dealt_out_anew_explain_nothing(seed):
    attributes, acts, outputs, draw = model_of(seed)
    dealt = attributes[torch.randperm(len(attributes), generator=draw)]
    found = elude(dealt, acts, outputs, rank=6)
    assert abs(found.labelled) < 0.03
    assert found.shares[-1] > 0.8


def test_the_shares_are_those_of_a_naive_fit(seed):
    attributes, acts, outputs, _ = model_of(seed, rows=400)
    held_out = torch.arange(400) >= 300
    found = elude(attributes[:, 2:], acts, outputs, rank=3, held_out=held_out)
    assert bool(found.weights.any(1).all())
    design = torch.cat([attributes[:, 2:], torch.ones(400, 1)], dim=1).double()
    y = outputs.double()
    labelled = design @ torch.linalg.lstsq(design[:300], y[:300]).solution
    total = (y - y[:300].mean(0))[300:].square().sum()
    features = found.features(acts).double()
    for rank in range(4):
        # The unlabelled part has no constant of its own: its features are centred on the rows fitted.
        fitted = labelled + features[:, :rank] @ found.writes[:rank].double()
        share = 1 - (y - fitted)[300:].square().sum() / total
        assert float(found.shares[rank]) == pytest.approx(float(share), abs=1e-4)
    assert torch.allclose(found.writes @ found.writes.T, torch.eye(3), atol=1e-5)
    assert torch.allclose(features[:300].mean(0), torch.zeros(3).double(), atol=1e-4)


@pytest.mark.parametrize("rank", [1, 2])
def test_the_remainder_is_the_best_of_its_rank(rank, seed):
    """No alternation of least squares, from anywhere, leaves less."""
    draw = generator(seed)
    x = torch.randn(500, 7, generator=draw).double()
    y = x @ torch.randn(7, 5, generator=draw).double() + 0.5 * torch.randn(500, 5, generator=draw)
    attributes, held_out = torch.zeros(500, 1).double(), torch.arange(500) >= 400
    found = elude(attributes, x, y, rank=rank, held_out=held_out)
    centred, wanted = x[:400] - x[:400].mean(0), y[:400] - y[:400].mean(0)
    ours = (wanted - found.features(x)[:400] @ found.writes).square().sum()
    for _ in range(3):
        write = torch.randn(rank, 5, generator=draw).double()
        for _ in range(300):
            read = torch.linalg.lstsq(centred, wanted @ torch.linalg.pinv(write)).solution
            write = torch.linalg.lstsq(centred @ read, wanted).solution
        assert ours <= (wanted - centred @ read @ write).square().sum() * 1.001


def test_the_search_takes_what_a_naive_one_takes(seed):
    draw = generator(seed)
    pool, targets = torch.randn(60, 9, generator=draw).double(), torch.randn(60, 3, generator=draw).double()
    pool[:, 4] = pool[:, 2] * 3  # says nothing new beside the other
    pool[:, 6] += pool[:, 1] - targets[:, 0]
    pool, targets = pool - pool.mean(0), targets - targets.mean(0)
    naive: list[int] = []
    for _ in range(5):
        left = {}
        for i in set(range(9)) - set(naive):
            columns = pool[:, [*naive, i]]
            fit = torch.linalg.lstsq(columns, targets, driver="gelsd").solution
            left[i] = float((targets - columns @ fit).square().sum())
        naive.append(min(left, key=lambda i: left[i]))
    found = [{4: 2}.get(i, i) for i in forward(pool, targets, 5).tolist()]  # the two are equally good
    assert found == [{4: 2}.get(i, i) for i in naive]
    assert len(forward(pool, targets, 9)) == 8


def test_the_frame_has_a_row_per_rank(seed):
    attributes, acts, outputs, _ = model_of(seed, rows=300)
    found = elude(attributes[:, 1:], acts, outputs, rank=2)
    frame = found.to_frame()
    assert frame["rank"].tolist() == [0, 1, 2]
    assert frame.share.tolist() == pytest.approx(found.shares.tolist())
    assert frame.gain.sum() == pytest.approx(frame.share.iloc[-1])
    assert len(elude(attributes, acts, outputs[:, :1], rank=4).to_frame()) == 2  # one output has one rank
    again = elude(attributes[:, 1:].clone().requires_grad_(), acts.clone().requires_grad_(), outputs, rank=2, seed=0)
    assert found.shares.tolist() == again.shares.tolist()


def test_attributes_that_do_not_vary_where_they_are_fitted_explain_nothing():
    acts = torch.randn(200, 5)
    held_out = torch.arange(200) >= 150
    rare = torch.full((200, 2), 0.1)
    rare[150:, 0] = 7.0
    rare[3, 1] = 0.2  # alone among the rows fitted, and so in one fold
    found = elude(rare[:, :1], acts, acts, held_out=held_out)
    assert found.labelled == pytest.approx(0, abs=0.2)
    assert not found.weights.any()
    assert bool(elude(rare, acts, acts, held_out=held_out).shares.isfinite().all())


def test_bad_tables_are_refused(as_user):
    attributes, acts, outputs = torch.randn(40, 3), torch.randn(40, 5), torch.randn(40, 2)
    with pytest.raises(ValueError, match=r"of the same rows; got attributes \(39, 3\), acts \(40, 5\)"):
        elude(attributes[1:], acts, outputs)
    with pytest.raises(ValueError, match=r"attributes \(40, 0\)"):
        elude(attributes[:, :0], acts, outputs)
    with pytest.raises(ValueError, match="NaN or infinity among the acts and outputs"):
        elude(attributes, acts / 0, outputs * math.nan)
    with pytest.raises(ValueError, match="is 0 or more; got -1"):
        elude(attributes, acts, outputs, rank=-1)
    with pytest.raises(ValueError, match="must vary"):
        elude(attributes, acts, torch.ones(40, 2))
    with pytest.raises(ValueError, match="leaves 8 or more on either side; got 40 marks, of which 3"):
        elude(attributes, acts, outputs, held_out=torch.arange(40) < 3)
    with pytest.raises(ValueError, match="some of the 20 rows"):
        elude(attributes[:20], acts[:20], outputs[:20])
