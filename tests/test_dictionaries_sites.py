"""Dictionaries of two sites: transcoders in a model and beside it, and crosscoders that tell what sites share."""

import inspect
import logging
import random
from functools import cache
from itertools import count

import pytest
import torch
from torch import Tensor

from workbench.dictionaries import (
    BatchTopK,
    Codes,
    Crosscoder,
    TopK,
    fidelity,
    load_dictionary,
    save,
    splice,
    splice_kl,
    spliced,
)
from workbench.language import Language
from workbench.language.planted import World, plain, recovery
from workbench.models import Context, Site, edited, generate, load_model, record, resume
from workbench.training import TrainConfig, train

READ, WRITE = Site(2, "mlp_in"), Site(2, "mlp_out")
SEED = random.randrange(2**20)


@pytest.fixture(autouse=True)
def _told():
    logging.warning("SEED = %s", SEED)  # shown with a test that fails


def gaussian(*shape: int, seed: int = SEED) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def transcoder(d_in: int = 12, d_out: int = 9, *, skip: bool = False, size: float = 1.0, centre: float = 3.0):
    """A transcoder in no special state, initialised on activations far from zero, and those."""
    batch = {
        READ: size * (gaussian(300, d_in) + centre * gaussian(d_in, seed=SEED + 1)),
        WRITE: 0.1 * size * (gaussian(300, d_out, seed=SEED + 2) + centre),
    }
    dictionary = TopK(d_in, 40, k=5, d_out=d_out, sites_in=READ, sites_out=WRITE, skip=skip, seed=SEED)
    dictionary.initialise(batch)
    with torch.no_grad():
        for n, (key, parameter) in enumerate(dictionary.named_parameters()):
            if key not in ("W_enc", "W_dec"):
                parameter += 0.3 * gaussian(*parameter.shape, seed=SEED + 3 + n)
    return dictionary, batch


either = pytest.mark.parametrize("skip", [False, True])


# --- transcoders ---------------------------------------------------------------------------------------------


def test_a_reconstruction_is_what_the_codes_stand_for_and_what_passes_beside_them():
    dictionary, batch = transcoder(skip=True)
    x, y = dictionary.pair(batch)
    folded = dictionary.folded()
    codes = dictionary.encode(x)
    assert folded.W_skip is not None
    naive = codes.dense() @ folded.W_dec + folded.b_dec + x @ folded.W_skip.T
    for one in (dictionary, folded):
        assert torch.allclose(one(x), naive, atol=1e-5)
        assert torch.allclose(one.decode(codes) + one.skip(x), naive, atol=1e-5)
    assert dictionary.skip(x).abs().max() > 0.1
    fvu = (y - naive).square().sum() / (y - y.mean(0)).square().sum()
    assert fidelity(dictionary, batch).fvu == pytest.approx(fvu.item(), rel=1e-4)
    assert dictionary.skip(x[:6].view(2, 3, 12)).shape == (2, 3, 9)
    assert transcoder(skip=False)[0].skip(x) == 0


def test_skip_is_refused_where_it_would_copy():
    for site in ((), READ):
        with pytest.raises(
            ValueError, match=r"skip=True is for a transcoder; this TopK rebuilds what it reads, .* copy"
        ):
            TopK(12, 40, k=5, skip=True, sites_in=site, sites_out=site)
    with pytest.raises(ValueError, match="skip=True is for a transcoder; this Crosscoder rebuilds what it reads"):
        Crosscoder(12, 40, k=5, skip=True, sites_in=[READ, WRITE])


@either
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_saved_transcoder_keeps_what_it_kept(tmp_path, skip, dtype):
    # So far from zero that a rounded weight moves every code, unless the biases know of it.
    dictionary, batch = transcoder(64, 64, skip=skip, size=40.0, centre=100.0)
    save(dictionary, tmp_path, dtype=dtype)
    loaded = load_dictionary(tmp_path)
    assert loaded.describe() == dictionary.describe()
    assert loaded.describe()["options"] == ({"k": 5, "skip": True} if skip else {"k": 5})
    if dtype == torch.float32:
        assert torch.equal(loaded(batch[READ]), dictionary.folded()(batch[READ]))
    else:
        sizes = [next(tmp_path.glob("*.safetensors")).stat().st_size]
        save(dictionary, tmp_path)
        sizes.append(next(tmp_path.glob("*.safetensors")).stat().st_size)
        assert sizes[0] < 0.6 * sizes[1]
    close = max(5 * torch.finfo(dtype).eps, 1e-3)
    assert fidelity(loaded, batch).fvu == pytest.approx(fidelity(dictionary, batch).fvu, rel=close)


# --- in a model ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny", device="cpu")


@pytest.fixture(scope="module")
def prompt(tiny) -> Tensor:
    from workbench.language import Language

    return Language(0).documents(1, split="test", seed=SEED).tokens[:1, :20]


def exact(x: Tensor, y: Tensor, *, skip: bool) -> TopK:
    """A transcoder that knows each of a few activations by heart: one feature for each, which fires there alone."""
    dictionary = TopK(x.shape[1], len(x), k=1, d_out=y.shape[1], sites_in=READ, sites_out=WRITE, skip=skip).double()
    with torch.no_grad():
        if dictionary.W_skip is not None:
            dictionary.W_skip.copy_(gaussian(y.shape[1], x.shape[1]) / x.shape[1])
        rest = y.double() - dictionary.skip(x)
        length = rest.norm(dim=1, keepdim=True)
        dictionary.W_dec.copy_(rest / length)
        dictionary.W_enc.copy_(length * torch.linalg.pinv(x.double()).T)
    return dictionary


def same(logits: Tensor, clean: Tensor) -> bool:
    return bool((logits - clean).norm() <= 1e-5 * clean.norm())


@either
def test_a_spliced_transcoder_with_its_error_kept_changes_nothing(tiny, prompt, skip):
    acts = record(tiny, prompt, [READ, WRITE])
    dictionary = TopK(128, 256, k=8, sites_in=READ, sites_out=WRITE, skip=skip, seed=SEED)
    dictionary.initialise({site: rows.flatten(0, 1) for site, rows in acts.items()})
    if dictionary.W_skip is not None:
        torch.nn.init.normal_(dictionary.W_skip, std=0.1)
    clean = tiny(prompt)
    with edited(tiny, spliced(dictionary)):
        assert same(tiny(prompt), clean)
    with edited(tiny, spliced(dictionary, error="drop")):
        assert torch.allclose(record(tiny, prompt, [WRITE])[WRITE], dictionary(acts[READ]), atol=1e-5)
        assert not same(tiny(prompt), clean)
    plainly, through = (
        [token.id for token, _ in zip(generate(tiny, prompt[:, :6], edits=edits), range(5), strict=False)]
        for edits in (None, spliced(dictionary))
    )
    assert through == plainly


@either
def test_an_exact_transcoder_takes_the_place_of_the_mlp(tiny, prompt, skip):
    acts = record(tiny, prompt, [READ, WRITE])
    dictionary = exact(acts[READ][0], acts[WRITE][0], skip=skip)
    clean = tiny(prompt)
    with edited(tiny, spliced(dictionary, error="drop")):
        assert same(tiny(prompt), clean)


@pytest.mark.parametrize("site", [WRITE, Site(2), Site(1, "z")])
def test_an_exact_autoencoder_takes_the_place_of_its_site(tiny, prompt, site):
    dictionary = TopK(128, 256, k=128, sites_in=site)
    axes = torch.cat([torch.eye(128), -torch.eye(128)])
    with torch.no_grad():
        dictionary.W_enc.copy_(axes)
        dictionary.W_dec.copy_(axes)
    clean = tiny(prompt)
    for edits in ({site: splice(dictionary, error="drop")}, spliced(dictionary, error="drop")):
        with edited(tiny, edits):
            assert same(tiny(prompt), clean)


def test_several_dictionaries_are_spliced_in_together(tiny, prompt):
    edits = {}
    for layer in range(5):
        read, write = Site(layer, "mlp_in"), Site(layer, "mlp_out")
        dictionary = TopK(128, 256, k=8, sites_in=read, sites_out=write, seed=layer)
        acts = record(tiny, prompt, [read, write])
        dictionary.initialise({site: rows.flatten(0, 1) for site, rows in acts.items()})
        edits |= spliced(dictionary)
    clean = tiny(prompt)
    with edited(tiny, edits):
        assert same(tiny(prompt), clean)


def contexts(shape: tuple[int, int], *sites: Site) -> list[Context]:
    """What the edits at ``sites`` are told in one forward."""
    positions = torch.arange(shape[1]).expand(shape)  # one for all sites, as the model gives it
    return [Context(positions, positions, torch.ones(shape, dtype=torch.bool), site) for site in sites]


@pytest.mark.parametrize("stream", ["resid_post", "attn_out", "transcoder"])
def test_what_splicing_in_costs_is_that_of_one_text_after_another(tiny, stream):
    documents = Language(0).documents(40, split="test", seed=SEED)  # more than share a forward
    read, write = (READ, WRITE) if stream == "transcoder" else (Site(2, stream),) * 2
    dictionary = TopK(128, 200, k=8, sites_in=read, sites_out=write, seed=SEED)
    dictionary.initialise(record(tiny, documents.tokens, [read, write]))
    where = documents.mask & (documents.tokens != tiny.tokenizer.bos_token_id)
    found = splice_kl(tiny, dictionary, documents.tokens, where=where)
    assert found.shape == where.shape
    assert not found[~where].any()
    assert found[where].mean() > 0.01
    for row, length in zip(range(40), documents.lengths.tolist(), strict=True):
        text = documents.tokens[row : row + 1, :length]
        acts = record(tiny, text, [read, write])
        instead = acts[write].clone()
        instead[0, 1:] = dictionary(acts[read][0, 1:])
        p, q = tiny(text)[0].softmax(-1), resume(tiny, write, instead, tokens=text)[0].softmax(-1)
        kl = (p * (p / q).log()).sum(-1)
        assert torch.allclose(found[row, 1:length], kl[1:], atol=1e-4, rtol=1e-3)


@either
def test_between_its_sites_the_gradient_is_that_of_the_transcoder(skip):
    dictionary, batch = transcoder(skip=skip)
    x = batch[READ].view(3, 100, 12).clone().requires_grad_()
    read, write = spliced(dictionary).values()
    here, there = contexts((3, 100), READ, WRITE)
    mlp = torch.tanh(read(x, here)[..., :9])  # what the model computes between, which the kept error cuts off
    weights = gaussian(3, 100, 9, seed=SEED + 9)
    (write(mlp, there) * weights).sum().backward()
    through = batch[READ].view(3, 100, 12).clone().requires_grad_()
    (dictionary(through) * weights).sum().backward()
    assert x.grad is not None
    assert through.grad is not None
    assert torch.allclose(x.grad, through.grad, atol=1e-5)


def test_a_changed_code_moves_what_is_written():
    dictionary, batch = transcoder(skip=True)
    x, y = batch[READ][None], batch[WRITE][None]
    edits = spliced(dictionary, change=lambda codes: Codes(2 * codes.values, codes.indices, codes.n_features))
    read, write = edits.values()
    here, there = contexts((1, 300), READ, WRITE)
    assert torch.equal(read(x, here), x)
    moved = write(y, there) - y
    assert torch.allclose(moved, dictionary.encode(x).dense() @ dictionary.W_dec, atol=1e-4)


def test_a_transcoder_writes_only_what_it_has_read_in_the_same_forward(tiny, prompt):
    dictionary = TopK(128, 256, k=8, sites_in=READ, sites_out=WRITE)
    edits = spliced(dictionary)
    with (
        edited(tiny, {WRITE: edits[WRITE]}),
        pytest.raises(ValueError, match=r"at '2\.mlp_out' is computed from '2\.mlp_in', where .* not been edited"),
    ):
        tiny(prompt)
    with edited(tiny, edits):
        record(tiny, prompt, [READ])  # ends before anything is written
    with edited(tiny, {WRITE: edits[WRITE]}), pytest.raises(ValueError, match="has not been edited"):
        tiny(prompt)
    with edited(tiny, edits):  # from behind the MLP there is nothing to read, and nothing to write
        after = record(tiny, prompt, [Site(2)])[Site(2)]
        assert same(resume(tiny, Site(2), after, tokens=prompt), tiny(prompt))


def test_what_cannot_be_spliced_in_is_explained():
    backwards = TopK(12, 40, k=5, sites_in=WRITE, sites_out=READ)
    with pytest.raises(ValueError, match=r"rebuilds '2\.mlp_in' from '2\.mlp_out', which a forward computes later"):
        spliced(backwards)
    with pytest.raises(
        ValueError, match=r"Only a .* by one edit; this one reads '2\.mlp_in'.*edited\(model, spliced\("
    ):
        splice(transcoder()[0])
    with pytest.raises(
        ValueError, match=r"names no site to be put at; build it with sites_in=Site\(…\), or use splice"
    ):
        spliced(TopK(12, 40, k=5))
    for door in (splice, spliced):
        with pytest.raises(
            ValueError, match=r"need '0\.resid_post', '1\.resid_post' at once, which a forward computes"
        ):
            door(Crosscoder(12, 40, k=5, sites_in=[Site(0), Site(1)]))
    with pytest.raises(ValueError, match=r"error must be .keep. or .drop., got 'ignore'"):
        inspect.unwrap(spliced)(transcoder()[0], error="ignore")  # below the type check that only tests have


# --- crosscoders ---------------------------------------------------------------------------------------------

D, SHARED, OWN = 24, 32, 8
SIZES = torch.tensor([1.0, 50.0])[:, None]
BOTH = [Site(1), Site(3)]


class Two:
    """Two sites of very different size, with features in both and in either."""

    def __init__(self, seed: int):
        self.world = World({"plain": plain(SHARED + 2 * OWN, active=(1, 5))}, d=2 * D, seed=seed, offset=2.0)
        directions = self.world.directions.view(-1, 2, D).clone()
        directions[SHARED : SHARED + OWN, 1] = 0
        directions[SHARED + OWN :, 0] = 0
        self.directions = directions / directions.flatten(1).norm(dim=1)[:, None, None]
        self.where = torch.tensor([0.5] * SHARED + [0.0] * OWN + [1.0] * OWN)

    def rows(self, n: int, seed: int | tuple[int, ...]) -> Tensor:
        acts = torch.einsum("nf,fsd->nsd", self.world.rows(n, seed=seed).codes, self.directions)
        return SIZES * (acts + self.world.offset.view(2, D))

    def batches(self, seed: int):
        return (self.rows(256, (seed, i)) for i in count())


@cache
def trained(seed: int) -> Crosscoder:
    crosscoder = Crosscoder(D, 2 * (SHARED + 2 * OWN), k=4, sites_in=BOTH, seed=seed)
    list(train(crosscoder, Two(seed).batches(1), TrainConfig(steps=400, lr=1e-2, dead_tokens=50_000)))
    return crosscoder


def test_shared_features_and_those_of_one_site_are_found_and_told_apart():
    found, told = [], []
    for seed in (SEED, SEED + 1, SEED + 2):
        two, crosscoder = Two(seed), trained(seed)
        match = recovery(two.directions.flatten(1), crosscoder.W_dec.flatten(1))
        found.append(match.rate(0.9))
        for site in (0, 1):
            here = two.directions[:, site].norm(dim=1) > 0
            found.append(recovery(two.directions[here, site], crosscoder.W_dec[:, site]).rate(0.9))
        relative = crosscoder.norms[match.latent, 1] / crosscoder.norms[match.latent].sum(1)
        told += [((relative - two.where)[two.where == kind].abs() < 0.15).float().mean().item() for kind in (0, 0.5, 1)]
        # A direction of random length is no sign of anything: those that were planted at both sites differ as well.
        lengths = two.directions[:SHARED].norm(dim=2)
        truth = lengths[:, 1] / lengths.sum(1)
        assert torch.corrcoef(torch.stack([relative[:SHARED], truth]))[0, 1] > 0.8
    assert sum(found) / len(found) >= 0.9, found
    assert sum(told) / len(told) >= 0.9, told


def test_no_site_counts_for_more_because_it_is_larger():
    crosscoder, x = trained(SEED), Two(SEED).rows(4000, 2)
    kept = fidelity(crosscoder, x)
    assert max(kept.by_site) < 0.25
    assert kept.fvu == pytest.approx(sum(kept.by_site) / 2)
    # One dictionary of both, end to end, sees the larger one alone.
    flat = BatchTopK(2 * D, crosscoder.n_features, k=4, seed=SEED)
    list(train(flat, (x.flatten(1) for x in Two(SEED).batches(1)), TrainConfig(steps=200, lr=1e-2)))
    left = (x - flat(x.flatten(1)).view_as(x))[:, 0]
    assert left.square().sum() / (x[:, 0] - x[:, 0].mean(0)).square().sum() > 2 * max(kept.by_site)


def test_norms_are_those_of_training_however_the_crosscoder_is_stored(tmp_path):
    crosscoder = trained(SEED)
    naive = crosscoder.W_dec.detach().norm(dim=2)
    assert torch.allclose(naive.square().sum(1), torch.ones(len(naive)), atol=1e-4)
    save(crosscoder, tmp_path)
    for stored in (crosscoder, crosscoder.folded(), load_dictionary(tmp_path)):
        assert isinstance(stored, Crosscoder)
        assert torch.allclose(stored.norms, naive, atol=1e-5)
    # In the units of the activations, rows are as long as what the larger site varies by.
    assert 0.2 < crosscoder.folded().W_dec.flatten(1).norm(dim=1).median() < 1


def test_fidelity_is_measured_at_each_site():
    crosscoder, x = trained(SEED), Two(SEED).rows(1000, 3)
    left = (x - crosscoder(x)).detach().double()
    naive = left.square().sum((0, 2)) / (x - x.mean(0)).double().square().sum((0, 2))
    for measured in (fidelity(crosscoder, x), fidelity(crosscoder, x.split(130))):
        assert measured.by_site == pytest.approx(naive.tolist(), rel=1e-4)
    autoencoder = TopK(12, 40, k=5)
    kept = fidelity(autoencoder, gaussian(100, 12))
    assert kept.by_site == (kept.fvu,)


def test_sites_by_name_are_taken_in_the_order_of_the_crosscoder():
    crosscoder, x = trained(SEED), Two(SEED).rows(50, 4)
    taken, _ = crosscoder.pair({Site(3): x[:, 1], Site(0): 0 * x[:, 0], Site(1): x[:, 0]})
    assert torch.equal(taken, x)


def test_one_site_of_several_models_is_read_from_a_tensor():
    crosscoder = Crosscoder(D, 96, k=4, sites_in=[Site(1)] * 3)
    x = gaussian(200, 3, D)
    crosscoder.initialise(x)
    assert crosscoder(x).shape == x.shape
    assert crosscoder.norms.shape == (96, 3)
    with pytest.raises(ValueError, match=r"reads '1\.resid_post', .*, the same site of several models, and a mapping"):
        crosscoder.pair({Site(1): x[:, 0]})


def test_a_crosscoder_of_what_is_not_several_sites_is_explained():
    with pytest.raises(ValueError, match=r"rebuilds the sites it reads, two or more .* got no named site of width 12"):
        Crosscoder(12, 40, k=4)
    with pytest.raises(ValueError, match=r"got '1\.resid_post' of width 12 to read.* one site alone takes BatchTopK"):
        Crosscoder(12, 40, k=4, sites_in=Site(1))
    with pytest.raises(ValueError, match=r"and '1\.resid_post', '3\.resid_post' of width 9 to rebuild"):
        Crosscoder(12, 40, k=4, d_out=9, sites_in=BOTH)
    with pytest.raises(ValueError, match=r"takes activations of 2 sites and width 12 here, got shape \(7, 12\)"):
        Crosscoder(12, 40, k=4, sites_in=BOTH).encode(gaussian(7, 12))


def test_half_precision_keeps_the_centres_of_a_crosscoder(tmp_path):
    crosscoder = Crosscoder(32, 64, k=4, sites_in=BOTH, seed=SEED)
    x = SIZES * (gaussian(300, 2, 32) + 200 * gaussian(2, 32, seed=SEED + 1))
    crosscoder.initialise(x)
    save(crosscoder, tmp_path, dtype=torch.float16)
    close = 5 * torch.finfo(torch.float16).eps
    assert fidelity(load_dictionary(tmp_path), x).fvu == pytest.approx(fidelity(crosscoder, x).fvu, rel=close)
