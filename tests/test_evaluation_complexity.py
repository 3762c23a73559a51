"""Complexity: features that become linear at a known layer, a naive fit beside ours, and the shipped model."""

import secrets
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Generator, Tensor

from workbench.activations import ActivationStore, Rows
from workbench.dictionaries import TopK
from workbench.evaluation import Complexity, complexity, feature_batches
from workbench.language import Language
from workbench.models import Site, load_model

LAYERS = [Site(i) for i in range(5)]


@pytest.fixture(params=[secrets.randbelow(2**40) for _ in range(3)])
def seed(request) -> int:
    return request.param


def split(acts: dict[Site, Tensor], z: Tensor, size: int = 256):
    """The rows in batches."""
    return [({s: x[i : i + size] for s, x in acts.items()}, z[i : i + size]) for i in range(0, len(z), size)]


def texts(seed: int, docs: int = 400, length: int = 16) -> dict[str, Tensor]:
    """Features of random texts of numbers and brackets, [row, value] each, from those of least depth to the most.

    Current-token identity; bigrams; the sum of all numbers so far modulo 7; how deep in brackets.
    """
    generator = Generator().manual_seed(seed)
    words = torch.randint(11, (docs, length), generator=generator)  # 7 numbers, two that open and two that close
    sums = (words * (words < 7)).cumsum(1) % 7
    depth, now = [], torch.zeros(docs, dtype=torch.long)
    for word in words.T:
        now = (now + ((word == 7) | (word == 8)).long() - (word > 8).long()).clamp(0, 3)
        depth.append(now)
    before = F.pad(words[:, :-1], (1, 0), value=0)
    chosen = torch.randperm(121, generator=generator)[:12]
    one_hot = {
        "token": F.one_hot(words, 11),
        "bigram": F.one_hot(before * 11 + words, 121)[..., chosen],
        "sum": F.one_hot(sums, 7),
        "depth": F.one_hot(torch.stack(depth, 1), 4),
    }
    return {name: values.flatten(0, 1).float() for name, values in one_hot.items()}


def layered(seed: int) -> tuple[dict[Site, Tensor], Tensor, Tensor]:
    """A stack in which layer 0 writes the token, layer 1 the bigrams, and so on, into one noisy residual stream."""
    generator = Generator().manual_seed(seed)
    features = texts(seed)
    rows = len(features["token"])
    stream, acts = torch.zeros(rows, 48), {}
    for site, values in zip(LAYERS, [*features.values(), torch.zeros(rows, 1)], strict=True):
        stream = stream + values @ torch.randn(values.shape[1], 48, generator=generator)
        acts[site] = stream + 0.05 * torch.randn(rows, 48, generator=generator)
    depth = torch.cat([torch.full((v.shape[1],), i) for i, v in enumerate(features.values())])
    return acts, torch.cat(list(features.values()), dim=1), depth


# --- planted depth -------------------------------------------------------------------------------------------


def test_features_of_known_depth_have_complexities_in_that_order(seed):
    acts, z, depth = layered(seed)
    found = complexity(split(acts, z))
    rank: Any = stats.spearmanr(found.score, depth)
    assert rank.statistic >= 0.9
    assert bool(((found.score >= 0) & (found.score <= 1)).all())
    means = [float(found.score[depth == i].mean()) for i in range(4)]
    assert means == sorted(means)
    assert found.first().tolist() == depth.tolist()


def test_scale_and_origin_of_a_feature_change_nothing(seed):
    acts, z, _ = layered(seed)
    generator = Generator().manual_seed(seed)
    scale = 10 ** (8 * torch.rand(z.shape[1], generator=generator, dtype=torch.float64) - 4)
    other = z * scale * torch.where(torch.rand(len(scale), generator=generator) < 0.5, -1, 1) + 3 * scale
    assert torch.allclose(complexity(split(acts, other)).score, complexity(split(acts, z)).score, atol=1e-5)


def test_what_no_layer_has_is_as_complex_as_can_be(seed):
    acts, _, _ = layered(seed)
    noise = torch.randn(len(acts[LAYERS[0]]), 20, generator=Generator().manual_seed(seed))
    found = complexity(split(acts, noise))
    assert float(found.score.min()) > 0.97
    assert set(found.first().tolist()) == {-1}


# --- the fit -------------------------------------------------------------------------------------------------


def test_decodability_is_that_of_a_naive_fit(seed):
    generator = Generator().manual_seed(seed)
    x = torch.randn(4000, 12, generator=generator) @ torch.randn(12, 12, generator=generator) + 30
    strength = torch.linspace(1, 5, 8)
    z = F.normalize(x - 30, dim=1) @ torch.randn(12, 8, generator=generator) * strength - 7
    z = z + torch.randn(4000, 8, generator=generator)
    batches = split({Site(0): x}, z, 200)
    held = torch.arange(4000) // 200 % 4 == 3
    r2 = []
    design = np.column_stack([x.numpy(), np.ones(4000)]).astype(np.float64)
    for target in z.T.double().numpy():
        weight = np.linalg.lstsq(design[~held], target[~held], rcond=None)[0]
        error = np.square(target - design @ weight)[held].sum()
        r2.append(max(0, 1 - error / np.square(target - target[~held].mean())[held].sum()))
    # Of what is there to fit: where nothing is, a ridge says so, and a fit without one finds what chance left.
    assert complexity(batches).decodability[0].numpy() == pytest.approx(np.array(r2), abs=5e-3)


def test_a_large_mean_costs_nothing(seed):
    acts, z, _ = layered(seed)
    far = {site: x.double() + 1e4 for site, x in acts.items()}
    assert torch.allclose(complexity(split(far, z)).score, complexity(split(acts, z)).score, atol=1e-3)


def test_more_dimensions_than_rows_do_not_pass_for_information(seed):
    generator = Generator().manual_seed(seed)
    x = torch.randn(400, 600, generator=generator)
    z = torch.cat([torch.randn(400, 5, generator=generator), x[:, :1] * 0], dim=1)
    found = complexity(split({Site(0): x}, z, 50)).score
    assert float(found[:5].min()) > 0.8
    assert found[5:].isnan().all()


def test_a_feature_that_is_constant_on_either_side_has_no_score():
    x = torch.randn(400, 3)
    z = torch.stack([x[:, 0], x[:, 0] * 0 + 0.1, x[:, 0] * (torch.arange(400) >= 300), x[:, 0].clone()], dim=1)
    z[300:, 3] = 0.7
    found = complexity(split({Site(0): x}, z, 100))
    assert found.score.isnan().tolist() == [False, True, True, True]
    assert found.first().tolist() == [0, -1, -1, -1]


# --- stores and the shipped model ----------------------------------------------------------------------------


@cache
def store() -> ActivationStore:
    documents = Language(0).documents(600, split="all", seed=secrets.randbelow(2**30))
    sites = [Site(0, "resid_pre"), *LAYERS]
    return ActivationStore.collect(load_model("tiny", device="cpu"), documents, sites)


def test_in_the_shipped_model_a_word_comes_before_the_word_before_it_and_both_before_the_depth_of_brackets():
    every = store().rows(slice(None), ())
    common = every.tokens[every.pos > 0].bincount()
    common[every.tokens[-1]] = 0  # the end of text comes before nothing
    common = common.topk(12).indices

    def read(rows: Rows) -> Tensor:
        same = F.pad(rows.doc[:-1] == rows.doc[1:], (1, 0))
        before = torch.where(same, F.pad(rows.tokens[:-1], (1, 0)), -1)
        depth = rows.labels["depth"]
        return torch.cat([rows.tokens[:, None] == common, before[:, None] == common, F.one_hot(depth, 5)[:, 1:]], 1)

    batches = ((acts, z.float()) for acts, z in feature_batches(store(), read, size=512))
    word, previous, depth = (part.nanmean() for part in complexity(batches).score.split([12, 12, 4]))
    assert word < previous < depth


def test_the_features_of_a_dictionary_are_read_where_it_reads_and_decoded_from_before():
    dictionary = TopK(128, 40, k=4, sites_in=Site(2))
    batches = list(feature_batches(store(), dictionary, size=1000))
    rows = store().rows(slice(1000, 2000))
    acts, z = batches[1]
    assert list(acts) == [Site(0, "resid_pre"), Site(0), Site(1)]
    assert torch.equal(acts[Site(1)], rows.acts[Site(1)])
    assert torch.equal(z, dictionary.encode(rows.acts[Site(2)]).dense())
    assert sum(len(z) for _, z in batches) == len(store())
    only = next(feature_batches(store(), dictionary, [Site(4)]))[0]
    assert list(only) == [Site(4)]


def test_the_table_has_a_line_for_each_feature():
    found = Complexity((Site(0), Site(1)), torch.tensor([[0.95, 0.1, 0.0], [0.97, 0.92, 0.2]]))
    table = found.to_frame()
    assert table["complexity"].tolist() == pytest.approx([0.04, 0.49, 0.9])
    assert table["first"].tolist() == ["0.resid_post", "1.resid_post", ""]
    assert table["1.resid_post"].tolist() == pytest.approx([0.97, 0.92, 0.2])
    assert found.first(0.05).tolist() == [0, 0, 1]


# --- bad input -----------------------------------------------------------------------------------------------

X, Z = torch.zeros(4, 3), torch.zeros(4, 2)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: complexity([({Site(0): X}, Z)] * 3),
            r"needs 4 or more, of one layer or more; got 3 of 1 layers\. Giv",
        ),
        (lambda: complexity([({}, Z)] * 4), r"got 4 of 0 layers"),
        (lambda: complexity([({Site(0): X}, Z[:3])]), r"batch 1 has 4 rows at 0\.resid_post and values \(3, 2\)"),
        (lambda: complexity([({Site(0): X}, Z[:, 0])]), r"values \[row, feature\].* and values \(4,\)"),
        (lambda: complexity([({Site(0): X[:0]}, Z[:0])]), r"of one row or more; batch 1 has 0 rows at 0"),
        (
            lambda: complexity([({Site(0): X}, Z), ({Site(1): X}, Z)]),
            r"batch 2 has 4 rows at 1\.resid_post.* 1 was of 0\.",
        ),
        (
            lambda: next(feature_batches(store(), TopK(128, 9, k=2, sites_in=Site(0, "resid_pre")))),
            r"read at 0\.resid_pre and the store has no site before it, only 0\.resid_pre, 0\.resid_post",
        ),
        (lambda: next(feature_batches(store(), TopK(128, 9, k=2))), r"names no site"),
        (lambda: next(feature_batches(store(), lambda rows: Z, [Site(0, "z")])), r"This store has no 0\.z"),
        (lambda: complexity([({Site(0): X * torch.nan}, Z)] * 4), r"not finite"),
    ],
)
def test_bad_input_is_named(as_user, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
