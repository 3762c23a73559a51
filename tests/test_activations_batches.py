"""Shuffled batches and statistics: against the whole store, in memory and on disk."""

import json
from itertools import chain, islice

import pytest
import torch
from conftest import tokens_of

from workbench.activations import ActivationStore
from workbench.models import Site, edited

SITES = [Site(1), Site(0, "mlp_out")]
BUFFER = 1000


@pytest.fixture(scope="module", params=["memory", "disk"])
def store(request, loaded, tmp_path_factory) -> ActivationStore:
    """3,900 rows; on disk, several times what the buffer of these tests holds."""
    directory = tmp_path_factory.mktemp("store") if request.param == "disk" else None
    noise = torch.Generator().manual_seed(0)

    def tell_apart(acts, context):
        # The first words of two documents are often the same, and so are their activations.
        return acts + torch.randn(acts.shape, generator=noise)

    with edited(loaded["neox"], {Site(0, "mlp_out"): tell_apart}):
        return ActivationStore.collect(loaded["neox"], tokens_of(100, 40), SITES, directory=directory, shard_rows=700)


def flat(lists: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(lists))


def numbers(store: ActivationStore, batches, count: int) -> list[list[int]]:
    """The rows of the store that each of the next batches holds, found by their activations."""
    whole = {tuple(row): i for i, row in enumerate(store.rows(slice(None)).acts[Site(1)][:, :4].tolist())}
    assert len(whole) == len(store)
    return [[whole[tuple(row)] for row in next(batches)[Site(1)][:, :4].tolist()] for _ in range(count)]


def test_an_epoch_visits_every_row_once_and_the_next_in_another_order(store):
    batches = store.batches([Site(1)], 300, seed=0, buffer_rows=BUFFER)
    first, second = numbers(store, batches, 13), numbers(store, batches, 13)  # 13 batches of 300 are 3,900 rows
    assert sorted(flat(first)) == list(range(len(store)))
    assert sorted(flat(second)) == list(range(len(store)))
    assert first != second


def test_batches_go_over_the_end_of_an_epoch(store):
    batches = store.batches([Site(1)], 1100, seed=0, buffer_rows=BUFFER)
    rows = flat(numbers(store, batches, 7))
    assert sorted(rows[: len(store)]) == list(range(len(store)))
    assert len(set(rows[len(store) :])) == 7700 - len(store)


def test_a_batch_holds_the_same_rows_at_every_site(store):
    whole = store.rows(slice(None))
    batches = store.batches(SITES, 200, seed=3, buffer_rows=BUFFER)
    for _ in range(3):
        batch = next(batches)
        assert list(batch) == SITES
        rows = (batch[Site(1)][:, None] == whole.acts[Site(1)]).all(-1).nonzero()[:, 1]
        assert torch.equal(batch[Site(0, "mlp_out")], whole.acts[Site(0, "mlp_out")][rows])


def test_the_seed_decides(store):
    def of(seed):
        return [batch[Site(1)] for batch in islice(store.batches([Site(1)], 256, seed, buffer_rows=BUFFER), 4)]

    again = of(5)
    assert all(torch.equal(a, b) for a, b in zip(of(5), again, strict=True))
    for other in (6, 5 + 2**32, 0):
        assert not torch.equal(of(other)[0], again[0])


def test_rows_are_well_mixed(store):
    """Neighbours in the corpus are not neighbours in a batch, and a batch comes from all over the corpus."""
    for seed in range(3):
        batches = store.batches([Site(1)], 300, seed, buffer_rows=BUFFER)
        for rows in numbers(store, batches, 4):
            rows = torch.tensor(rows)
            # Chance alone gives 300 · 2 / 3900 = 0.15 of such pairs; a buffer of three blocks, about 0.6.
            assert ((rows.diff().abs() == 1).sum()) < 6
            assert (rows // 1300).unique().numel() >= 2


@pytest.mark.parametrize("before", [0, 1, 5, 13, 20])
def test_a_restored_position_goes_on_with_the_same_batches(store, before):
    batches = store.batches(SITES, 270, seed=2, buffer_rows=BUFFER)
    for _ in range(before):
        next(batches)
    state = json.loads(json.dumps(batches.state_dict()))
    expected = [next(batches) for _ in range(16)]
    restored = store.batches(SITES, 270, seed=2, buffer_rows=BUFFER)
    next(restored)  # a position may be loaded at any time
    restored.load_state_dict(state)
    for batch in expected:
        assert all(
            torch.equal(rows, there) for rows, there in zip(batch.values(), next(restored).values(), strict=True)
        )


def test_a_position_of_other_batches_is_refused(store):
    state = store.batches(SITES, 100, seed=0).state_dict()
    for size, seed, sites, words in (
        (50, 0, SITES, "size 100, these have 50"),
        (100, 1, SITES, "seed 0, these have 1"),
    ):
        with pytest.raises(ValueError, match=words):
            store.batches(sites, size, seed).load_state_dict(state)
    with pytest.raises(ValueError, match="position is of batches with sites"):
        store.batches(SITES[:1], 100, 0).load_state_dict(state)


def test_the_buffer_bounds_what_is_held(loaded, tmp_path, monkeypatch):
    from workbench.activations import batches as module

    store = ActivationStore.collect(loaded["neox"], tokens_of(100, 40), SITES, directory=tmp_path, shard_rows=700)
    asked, gather = [], module.gather

    def counted(shards, name, index):
        asked.append(len(index))
        return gather(shards, name, index)

    monkeypatch.setattr(module, "gather", counted)
    batches = store.batches([Site(1)], 100, seed=0, buffer_rows=BUFFER)
    for _ in range(39):
        next(batches)
    assert max(asked) <= BUFFER
    assert sum(asked) == len(store)  # each row is read once in an epoch


def test_wrong_batches_are_met_by_a_sentence(store):
    with pytest.raises(ValueError, match=r"A batch holds 1 to 3900 rows \(all of this store\), got 3901"):
        store.batches(SITES, 3901, 0)
    with pytest.raises(ValueError, match=r"This store has no 2\.mlp_out; the nearest is 0\.mlp_out"):
        store.batches([Site(2, "mlp_out")], 10, 0)
    with pytest.raises(ValueError, match=r"at least one site; this store has 1\.resid_post, 0\.mlp_out"):
        store.batches([], 10, 0)


def test_statistics_are_those_of_all_rows(store):
    acts = store.rows(slice(None)).acts[Site(1)].double()
    found = store.statistics(Site(1), multiple=1.2)
    norms = acts.norm(dim=1)
    assert found.rows == len(store)
    torch.testing.assert_close(found.mean, acts.mean(0).float())
    assert found.rms_norm == pytest.approx(float(norms.square().mean().sqrt()))
    assert found.median_norm == pytest.approx(float(norms.median()), rel=1e-3)
    assert torch.equal(found.outliers, (norms > 1.2 * found.median_norm).nonzero()[:, 0])
    assert len(found.outliers) > 0
    assert len(store.statistics(Site(1)).outliers) == 0


def test_planted_outliers_are_found(loaded):
    """Tokens of one word are made twenty times as long, as attention sinks are."""
    word = 7

    def stretch(acts, context):
        return torch.where((context.tokens == word)[..., None], 20 * acts, acts)

    with edited(loaded["neox"], {Site(1): stretch}):
        store = ActivationStore.collect(loaded["neox"], tokens_of(50, 40), [Site(1)])
    outliers = store.statistics(Site(1)).outliers
    assert torch.equal(outliers, (store.rows(slice(None), sites=()).tokens == word).nonzero()[:, 0])
