"""A label by the strength of activations, against a naive version and planted illusions."""

import random

import pytest
import torch

from workbench.features import by_strength

SEED = random.randrange(10**6)


def test_parts_are_those_of_a_sorted_list():
    generator = torch.Generator().manual_seed(SEED)
    for size, n in ((40, 1), (40, 10), (57, 5), (203, 10)):
        acts = torch.randn(size, generator=generator)
        holds = torch.rand(size, generator=generator)
        active = sorted(((a, h) for a, h in zip(acts.tolist(), holds.tolist(), strict=True) if a > 0), reverse=True)
        long, longer = divmod(len(active), n)
        expected = []
        for i in range(n):
            part, active = active[: long + (i < longer)], active[long + (i < longer) :]
            expected.append(sum(h for _, h in part) / len(part))
        assert not active
        torch.testing.assert_close(by_strength(acts, holds, n=n), torch.tensor(expected), msg=f"seed {SEED}")


def test_an_illusion_that_was_planted_shows():
    acts = torch.arange(1000.0).flip(0) - 500  # active on 499 rows
    label = acts > 450
    assert by_strength(acts, label, n=10).tolist() == [pytest.approx(49 / 50), *[0.0] * 9]
    assert by_strength(acts, torch.ones(1000)).tolist() == [1.0] * 10


@pytest.mark.usefixtures("as_user")
def test_bad_inputs_are_met_by_a_sentence():
    acts = torch.tensor([1.0, 2.0, 0.0])
    with pytest.raises(ValueError, match="one value for each row, got 3 rows and 2 values"):
        by_strength(acts, torch.ones(2))
    for n in (0, 3):
        with pytest.raises(ValueError, match=rf"n must lie in 1\.\.2, the rows on which it is active, got {n}"):
            by_strength(acts, torch.ones(3), n=n)
    with pytest.raises(ValueError, match=r"1\.\.0"):
        by_strength(-acts, torch.ones(3))
