"""Directions into edits."""

import pytest
import torch

from workbench.models import Context, Site
from workbench.steering import add, random_direction


def test_the_direction_is_added_everywhere_but_at_the_first_position():
    acts = torch.randn(1, 4, 3)
    context = Context(
        torch.tensor([[0, 1, 2, 3]]), torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 4).bool(), Site(0)
    )
    vector = torch.tensor([1.0, -2.0, 0.5])
    new = add(vector)(acts.clone(), context)
    assert torch.equal(new[:, 0], acts[:, 0])
    assert torch.allclose(new[:, 1:] - acts[:, 1:], vector.expand(1, 3, 3), atol=1e-6)
    late = Context(torch.tensor([[9]]), context.tokens[:, :1], context.mask[:, :1], Site(0))
    assert torch.equal(add(vector)(acts[:, :1].clone(), late), acts[:, :1] + vector)


def test_the_random_direction_is_as_long_and_elsewhere():
    direction = torch.randn(256, generator=torch.Generator().manual_seed(1000)) * 3
    others = torch.stack([random_direction(direction, seed) for seed in range(50)])
    assert torch.allclose(others.norm(dim=1), direction.norm().expand(50), rtol=1e-5)
    # Cosines of random directions in d dimensions have a standard deviation of 1/sqrt(d); five of them are not passed.
    assert torch.cosine_similarity(others, direction[None]).abs().max() < 5 / 16
    assert torch.equal(random_direction(direction, 3), random_direction(direction, 3))


def test_the_control_is_not_what_a_reader_draws_with_the_same_seed():
    for seed in range(20):
        drawn = torch.randn(64, generator=torch.Generator().manual_seed(seed))
        assert torch.cosine_similarity(drawn, random_direction(drawn, seed), dim=0).abs() < 0.6


def test_a_vector_of_another_width_is_met_by_a_sentence():
    context = Context(torch.tensor([[0, 1]]), torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2).bool(), Site(0))
    with pytest.raises(ValueError, match="The vector to add has 5 numbers, but this site has 3"):
        add(torch.ones(5))(torch.zeros(1, 2, 3), context)
