"""Baselines: exact against naive versions, like any dictionary from outside, and no match for a trained one."""

import logging
import random
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment, nnls
from test_dictionaries_architectures import CASES, gaussian, linear, rough
from torch import Tensor

from workbench.dictionaries import (
    ICA,
    NMF,
    PCA,
    Codes,
    Dictionary,
    Neurons,
    Random,
    TopK,
    fidelity,
    load_dictionary,
    save,
    splice,
)
from workbench.dictionaries.baselines import Fitted
from workbench.dictionaries.storage import ARCHITECTURES, UNITS
from workbench.language.planted import World, plain, recovery
from workbench.models import Context, Site
from workbench.training import TrainConfig, train

D, N, K = 12, 8, 3
ACTIVE = 4

SEED = random.randrange(2**20)

every = pytest.mark.parametrize("kind", [PCA, ICA, NMF, Neurons, Random])


@pytest.fixture(autouse=True)
def _told():
    logging.warning("SEED = %s", SEED)  # shown with a test that fails


def sample(rows: int = 300, seed: int = SEED) -> Tensor:
    """Activations of every kind's liking: not negative, and of independent parts."""
    parts = torch.rand(N + 2, D, generator=torch.Generator().manual_seed(seed))
    return 7 * (gaussian(rows, N + 2, seed=seed + 1).relu() @ parts + 0.1 * gaussian(rows, D, seed=seed + 2).abs())


@cache
def fitted(kind: type[Fitted], k: int = N) -> Fitted:
    """A dictionary in float64, so that only mistakes show."""
    dictionary = kind(D, N, k=k, seed=SEED).double()
    dictionary.initialise(sample())
    return dictionary


def test_every_architecture_that_is_fitted_is_tested():
    assert {kind.__name__ for kind in (PCA, ICA, NMF, Neurons, Random)} == {
        name for name, kind in ARCHITECTURES.items() if isinstance(kind, type) and issubclass(kind, Fitted)
    }


# --- what they compute ---------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("k", [1, K, N])
def test_the_features_chosen_have_the_values_that_rebuild_best(kind, k):
    dictionary, x = fitted(kind, k), sample(60, seed=SEED + 9).double()
    codes = dictionary.encode(x)
    assert codes.values.shape == (60, k)
    v = x - dictionary.decode(Codes(0 * codes.values, codes.indices, N))
    for row, values, chosen in zip(v, codes.values, codes.indices, strict=True):
        W = dictionary.W_dec[chosen].T
        best = torch.tensor(nnls(W.numpy(), row.numpy())[0]) if kind is NMF else torch.linalg.lstsq(W, row).solution
        error, least = ((row - W @ c).norm() for c in (values, best))
        assert error <= least + 1e-3 * row.norm()


@every
def test_features_are_picked_by_what_they_remove(kind):
    dictionary, x = fitted(kind, K), sample(60, seed=SEED + 9).double()
    codes = dictionary.encode(x)
    for row, chosen in zip(
        x - dictionary.decode(Codes(0 * codes.values, codes.indices, N)), codes.indices, strict=True
    ):
        left, picked = row, []
        for _ in range(K):
            projections = [float(left @ direction) for direction in dictionary.W_dec]
            gains = [z * abs(z) if kind is NMF else z * z for z in projections]
            picked.append(max(set(range(N)) - set(picked), key=gains.__getitem__))
            left = left - projections[picked[-1]] * dictionary.W_dec[picked[-1]]
        assert chosen.tolist() == picked


def test_pca_is_the_singular_value_decomposition():
    x = sample().double()
    v = x - x.mean(0)
    _, sizes, axes = torch.linalg.svd(v, full_matrices=False)
    dictionary = fitted(PCA)
    assert torch.allclose((dictionary.W_dec * axes[:N]).sum(1).abs(), torch.ones(N).double())
    assert torch.allclose(dictionary.encode(x).dense(), v @ dictionary.W_dec.T, atol=1e-9)
    left = sizes[N:].square().sum() / sizes.square().sum()
    assert fidelity(dictionary, x).fvu == pytest.approx(left.item(), rel=1e-9)
    # The best k of orthogonal directions are those of largest projection.
    few = fitted(PCA, K).encode(x)
    assert torch.allclose(few.values, (v @ dictionary.W_dec.T).gather(1, few.indices), rtol=1e-5)
    whole = PCA(D, D).double()
    whole.initialise(x)
    assert torch.allclose(whole(x), x)


def test_ica_leaves_what_pca_leaves():
    x = sample().double()
    assert fidelity(fitted(ICA), x).fvu == pytest.approx(fidelity(fitted(PCA), x).fvu, rel=1e-6)


@pytest.mark.parametrize("kind", [PCA, ICA])
def test_components_are_turned_to_their_longer_tail(kind):
    codes = fitted(kind).encode(sample()).dense()
    assert ((codes - codes.mean(0)).pow(3).mean(0) >= 0).all()


@every
def test_a_seed_decides_all(kind):
    again, other = (kind(D, N, seed=seed).double() for seed in (SEED, SEED + 1))
    for dictionary in (again, other):
        dictionary.initialise(sample())
    assert torch.equal(again.W_dec, fitted(kind).W_dec)
    assert torch.equal(other.W_dec, fitted(kind).W_dec) == (kind in (PCA, Neurons))


# --- like any dictionary from outside ------------------------------------------------------------------------


@every
@pytest.mark.parametrize("k", [K, N])
def test_units_shapes_and_counts(kind, k):
    dictionary, x = fitted(kind, k), sample()
    assert torch.allclose(dictionary.W_dec.norm(dim=1), torch.ones(N).double())
    codes = dictionary.encode(x)
    bias = dictionary.b_dec / dictionary.scale_out + dictionary.centre_out
    assert torch.allclose(dictionary(x), codes.dense() @ dictionary.W_dec + bias)
    assert 0.5 * k < codes.l0 <= k
    assert torch.allclose(dictionary(x.view(3, 100, D)).view(300, D), dictionary(x))
    assert dictionary(x[:0]).shape == (0, D)
    assert kind is not NMF or (codes.values.min() >= 0 and bias.abs().max() == 0)


@every
@pytest.mark.parametrize("k", [K, N])
def test_codes_have_the_gradient_of_their_input(kind, k):
    dictionary, x = fitted(kind, k), sample(5, seed=SEED + 9).double()
    weights, step = (gaussian(*shape, seed=SEED).double() for shape in ((5, N), (5, D)))
    here = x.clone().requires_grad_()
    (dictionary.encode(here).dense() * weights).sum().backward()
    up, down = (dictionary.encode(x + 1e-6 * sign * step).dense() for sign in (1, -1))
    change = ((up - down) * weights).sum() / 2e-6
    assert here.grad is not None
    assert (here.grad * step).sum().item() == pytest.approx(change.item(), rel=1e-4, abs=1e-6)


@every
@pytest.mark.parametrize("scale", [2.0**-9, 2.0**9])
def test_the_unit_of_the_activations_changes_nothing_else(kind, scale):
    scaled = kind(D, N, k=K, seed=SEED).double()
    scaled.initialise(scale * sample())
    assert torch.allclose(scaled.W_dec, fitted(kind).W_dec, atol=1e-9)
    x = sample(50, seed=SEED + 9).double()
    codes, plainly = scaled.encode(scale * x).dense(), fitted(kind, K).encode(x).dense()
    assert torch.allclose(codes, scale * plainly, atol=1e-9 * scale)
    folded = scaled.folded()
    assert (folded.scale_out, folded.centre_in.abs().max()) == (1, 0)
    assert torch.allclose(folded.encode(scale * x).dense(), codes, atol=1e-9 * scale)
    assert torch.allclose(folded(scale * x), scaled(scale * x), atol=1e-9 * scale)


@every
def test_loading_gives_back_the_folded_dictionary_exactly(kind, tmp_path):
    site = Site(1, "mlp_out")
    dictionary = kind(D, N, k=K, sites_in=site, seed=SEED)
    dictionary.initialise({site: sample()})
    save(dictionary, tmp_path)
    loaded, folded = load_dictionary(tmp_path), dictionary.folded()
    assert torch.equal(loaded(sample()), folded(sample()))
    assert loaded.describe() == dictionary.describe()
    for key, tensor in folded.state_dict().items():
        assert key in UNITS or torch.equal(loaded.state_dict()[key], tensor), key
    assert fidelity(loaded, sample()).fvu == pytest.approx(fidelity(dictionary, sample()).fvu, rel=1e-3)


@every
def test_it_can_be_spliced_in(kind):
    acts = sample().view(3, 100, D).double()
    where = torch.arange(100).expand(3, 100)
    context = Context(where, torch.zeros_like(where), torch.ones(3, 100, dtype=torch.bool), Site(1))
    dictionary = fitted(kind, K)
    assert torch.allclose(splice(dictionary)(acts, context), acts)
    assert torch.equal(splice(dictionary, error="drop")(acts, context), dictionary(acts))


@every
def test_another_k_needs_no_other_fit(kind):
    few = fitted(kind).sparser(K)
    assert few.W_dec is fitted(kind).W_dec
    assert torch.equal(few(sample()), fitted(kind, K)(sample()))
    assert fitted(kind).k == N
    for wrong in (0, N + 1):
        with pytest.raises(ValueError, match=rf"k must lie in 1..{N} \(n_features\), got {wrong}"):
            few.sparser(wrong)
        with pytest.raises(ValueError, match=rf"k must lie in 1..{N} \(n_features\), got {wrong}"):
            kind(D, N, k=wrong)


# --- bad input -----------------------------------------------------------------------------------------------


@every
def test_there_is_nothing_to_train(kind):
    with pytest.raises(TypeError, match=rf"{kind.__name__} is fitted, not trained: initialise\(sample\) is all"):
        next(train(kind(D, N), [sample()], TrainConfig(steps=1)))


@every
def test_a_pair_of_sites_is_refused(kind):
    for options in ({"sites_in": [Site(0), Site(1)]}, {"d_out": 5}, {"sites_in": Site(0), "sites_out": Site(1)}):
        with pytest.raises(ValueError, match=f"{kind.__name__} reads one site and rebuilds one, the same"):
            kind(D, N, **options)


def test_negative_activations_are_refused_and_counted():
    x = sample()
    x[[3, 8], 2] = -0.1
    dictionary = NMF(D, N)
    with pytest.raises(ValueError, match=r"without negative numbers, and 2 of these 300 have some\. Record behind"):
        dictionary.initialise(x)
    dictionary.initialise(x.relu())  # a fit that was refused can be made good


@pytest.mark.parametrize("kind", [PCA, ICA])
def test_no_more_components_than_dimensions(kind):
    flat = sample() @ gaussian(D, 5, seed=SEED) @ gaussian(5, D, seed=SEED + 1)
    words = r"no more components than its sample has dimensions, here {} in {} activations of width 12; got n_feat.*={}"
    for n, x, rank in ((D + 1, sample(), D), (6, flat, 5), (N, sample(6), 5)):
        with pytest.raises(ValueError, match=words.format(rank, len(x), n)):
            kind(D, n).initialise(x)


# --- what they find, and what they do not --------------------------------------------------------------------


def test_ica_finds_features_of_any_angle_where_there_are_no_more_than_dimensions():
    for seed in range(SEED, SEED + 3):
        world = World({"plain": plain(24, active=(1, 5))}, d=32, seed=seed, offset=2.0)
        ica, pca = ICA(32, 24, seed=seed), PCA(32, 24)
        for dictionary in (ica, pca):
            dictionary.initialise(world.rows(4000, seed=1).acts)
        assert recovery(world.directions, ica.W_dec).rate(0.9) == 1
        assert recovery(world.directions, pca.W_dec, signed=False).rate(0.9) < 0.25


def trained(dictionary: Dictionary, batches, **options) -> Dictionary:
    list(train(dictionary, batches, TrainConfig(steps=300, lr=5e-3, dead_tokens=50_000, **options)))
    return dictionary


def table(x: Tensor, held_out: Tensor, **more: Dictionary) -> tuple[dict[str, Dictionary], dict[str, float]]:
    """Dictionaries with at most ``ACTIVE`` features active, and the share of the variance that each leaves."""
    d = x.shape[1]
    dictionaries = {
        "TopK": TopK(d, 128, k=ACTIVE),
        "frozen": TopK(d, 128, k=ACTIVE, frozen=True),
        "PCA": PCA(d, d, k=ACTIVE),
        "ICA": ICA(d, 32, k=ACTIVE),
        "Random": Random(d, 128, k=ACTIVE),
    } | more
    for dictionary in dictionaries.values():
        if isinstance(dictionary, Fitted):
            dictionary.initialise(x[:2000])
        else:
            order = torch.Generator().manual_seed(SEED)
            batches = (x[torch.randint(len(x), (512,), generator=order)] for _ in range(200))
            list(train(dictionary, batches, TrainConfig(steps=200, lr=5e-3, dead_tokens=50_000)))
    measured = {name: fidelity(dictionary, held_out) for name, dictionary in dictionaries.items()}
    assert all(of.l0 <= ACTIVE for of in measured.values())
    return dictionaries, {name: of.fvu for name, of in measured.items()}


def test_at_equal_counts_none_rebuilds_or_finds_as_much_as_a_trained_dictionary():
    world = World({"plain": plain(64, active=(1, 5))}, d=32, seed=SEED, offset=2.0)
    x, held_out = world.rows(20_000, seed=1).acts, world.rows(4000, seed=2).acts
    dictionaries, fvu = table(x, held_out)
    found = {name: recovery(world.directions, d.W_dec, signed=False).rate(0.9) for name, d in dictionaries.items()}
    assert min(fvu, key=fvu.__getitem__) == "TopK", fvu
    assert all(found["TopK"] > 0.3 + of for name, of in found.items() if name != "TopK"), found
    assert found["PCA"] == found["Random"] == found["frozen"] == 0
    # With all components active the same PCA rebuilds everything, and has still found nothing.
    pca = dictionaries["PCA"]
    assert isinstance(pca, PCA)
    assert fidelity(pca.sparser(32), held_out).fvu < 1e-9


# --- factor maps (Collins et al. 2018) -----------------------------------------------------------------------

TOPICS, LENGTH = 5, 32


def texts(docs: int, seed: int, *, draw: int = 0) -> tuple[Tensor, Tensor]:
    """What leaves the rectifier of a random MLP that reads planted texts, [doc, pos, 96], and the topics [doc, pos].

    A text stays with a topic for ten positions on average. A position holds the feature of its topic, and one to
    three features of its word, half as strong.
    """
    generator = torch.Generator().manual_seed(1000 * seed + draw)
    subject = replace(plain(TOPICS, active=(1,)), size=3.0)
    world = World({"topic": subject, "word": plain(32, active=(1, 3))}, d=32, seed=seed)
    turns = (torch.rand(docs, LENGTH, generator=generator) < 0.1).flatten().cumsum(0)
    topic = torch.randint(TOPICS, (docs * LENGTH + 1,), generator=generator)[turns]
    codes = world.rows(docs * LENGTH, seed=draw).codes
    codes[:, :TOPICS] = codes[:, :TOPICS].sum(1, keepdim=True) * F.one_hot(topic, TOPICS)
    hidden = (codes @ world.directions @ gaussian(32, 96, seed=seed)).relu()
    return hidden.view(docs, LENGTH, 96), topic.view(docs, LENGTH)


def overlaps(maps: Tensor, topic: Tensor) -> Tensor:
    """Intersection over union of each topic with a factor of its own, on the positions where that is the strongest."""
    strongest, true = (F.one_hot(which.flatten()).double() for which in (maps.argmax(-1), topic))
    both = true.T @ strongest
    shares = both / (true.sum(0)[:, None] + strongest.sum(0) - both)
    return shares[linear_sum_assignment(shares, maximize=True)]


def test_factor_maps_show_where_a_topic_is():
    for seed in range(SEED, SEED + 3):
        dictionary = NMF(96, TOPICS, seed=seed)
        dictionary.initialise(texts(60, seed)[0].flatten(0, 1))
        acts, topic = texts(60, seed, draw=1)  # other texts than those of the fit
        maps = dictionary.encode(acts).dense()
        assert maps.shape == (60, LENGTH, TOPICS)
        assert overlaps(maps, topic).min() >= 0.6
        assert overlaps(maps, topic.roll(1, 0)).mean() < 0.3  # the topics of other texts


def test_a_fit_of_more_factors_shows_the_parts_of_a_concept():
    """Two concepts of two parts each; each part has neurons of its own, and what is common to a concept is stronger."""
    worst: dict[int, list[float]] = {2: [], 4: []}
    for seed in range(SEED, SEED + 4):
        generator = torch.Generator().manual_seed(seed)
        common, own = 2 * torch.rand(2, 24, generator=generator) ** 3, torch.eye(4).repeat_interleave(6, 1)
        part = torch.randint(4, (40, 20), generator=generator)
        acts = (1 + torch.rand(40, 20, 1, generator=generator)) * (common[part // 2] + own[part])
        for n, truth in ((2, part // 2), (4, part)):
            dictionary = NMF(24, n, seed=seed)
            dictionary.initialise(acts.flatten(0, 1))
            worst[n].append(overlaps(dictionary.encode(acts).dense(), truth).min().item())
    assert all(sum(shares) / 4 >= 0.6 for shares in worst.values()), worst


def test_factors_rebuild_less_than_a_trained_dictionary_of_equal_count():
    x, held_out = (texts(docs, SEED, draw=i)[0].flatten(0, 1) for i, docs in enumerate((400, 60)))
    _, fvu = table(x, held_out, NMF=NMF(96, 16, k=ACTIVE), topics=NMF(96, TOPICS, k=ACTIVE))
    assert min(fvu, key=fvu.__getitem__) == "TopK", fvu


# --- the frozen decoder (Korznikov et al. 2026) --------------------------------------------------------------


@linear
def test_a_frozen_decoder_stays_as_it_was_drawn_and_the_rest_learns(name, tmp_path):
    case = CASES[name]
    full = {"warmup": 0} if "l1" in case.make().options else {}  # a price that rises would hide what is learnt
    dictionary, free = (case.make(seed=SEED, frozen=frozen, **full) for frozen in (True, False))
    before = {key: parameter.detach().clone() for key, parameter in dictionary.named_parameters()}
    assert torch.equal(before["W_dec"], free.W_dec)
    steps = list(train(dictionary, case.batches(SEED, 256, draw=1), TrainConfig(steps=60, lr=5e-3, save_every=30)))
    for key, parameter in dictionary.named_parameters():
        assert torch.equal(parameter, before[key]) == (key == "W_dec"), key
    assert steps[-1].loss < steps[0].loss if full else steps[-1].fvu < steps[0].fvu
    save(dictionary, tmp_path)
    assert load_dictionary(tmp_path).describe() == dictionary.describe()
    assert dictionary.describe() != free.describe()


@linear
def test_all_but_the_decoder_has_the_gradient_it_would_have(name):
    (frozen, batch), (free, _) = (rough(name, SEED, frozen=frozen) for frozen in (True, False))
    x, y = free.pair(batch)
    for dictionary in (frozen, free):
        dictionary.load_state_dict(free.state_dict())
        dictionary.loss(x, y, dead=torch.arange(3)).total.backward()
    assert frozen.W_dec.grad is None
    expected = dict(free.named_parameters())
    for key, parameter in frozen.named_parameters():
        if key != "W_dec":
            assert parameter.grad is not None
            assert parameter.grad.equal(expected[key].grad), key  # pyright: ignore[reportArgumentType]


def test_a_frozen_training_goes_on_from_its_checkpoint_and_no_other_does(tmp_path):
    def start(frozen: bool, **options):
        world = World({"plain": plain(64, active=(1, 5))}, d=32, seed=SEED)
        config = TrainConfig(steps=12, lr=5e-3, save_every=5)
        return train(TopK(32, 64, k=K, frozen=frozen, seed=SEED), world.batches(128, seed=1), config, **options)

    whole, killed = start(True), start(True, checkpoint=tmp_path)
    list(whole)
    for _ in range(8):
        next(killed)
    with pytest.raises(ValueError, match=r"holds a training whose dictionary has options=.*'frozen': True"):
        start(False, checkpoint=tmp_path)
    resumed = start(True, checkpoint=tmp_path)
    assert resumed.step == 5
    list(resumed)
    for key, tensor in whole.dictionary.state_dict().items():
        assert torch.equal(resumed.dictionary.state_dict()[key], tensor), key
