"""Dictionaries: exact against naive versions, the same after folding and on disk, honest about what they keep."""

import errno
import inspect
import json
import math
import shutil

import pytest
import torch
from conftest import D_MODEL, tokens_of
from safetensors import SafetensorError
from torch import Tensor

from workbench.dictionaries import (
    Codes,
    Crosscoder,
    TopK,
    export,
    fidelity,
    files,
    load_dictionary,
    save,
    sparse,
    splice,
)
from workbench.models import Context, Site, edited, fingerprint

SEEDS = (0, 1, 2)
NONE = torch.zeros(0, dtype=torch.long)  # of the features is dead


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(d_in: int = 12, n_features: int = 40, k: int = 5, *, seed: int = 0, size: float = 7.0, **options):
    """A dictionary initialised on activations far from zero and far from unit length, and those."""
    x = size * (random(300, d_in, seed=seed) + 3 * random(d_in, seed=seed + 100))
    dictionary = TopK(d_in, n_features, k=k, seed=seed, **options)
    dictionary.initialise(x)
    with torch.no_grad():
        dictionary.b_enc += 0.3 * random(n_features, seed=seed + 1)
        dictionary.b_dec += 0.3 * random(d_in, seed=seed + 2)
    return dictionary, x


def exact(d: int) -> TopK:
    """A dictionary that rebuilds everything: a feature for each axis and each sign."""
    dictionary = TopK(d, 2 * d, k=d)
    axes = torch.cat([torch.eye(d), -torch.eye(d)])
    with torch.no_grad():
        dictionary.W_enc.copy_(axes)
        dictionary.W_dec.copy_(axes)
    return dictionary


# --- codes and sparse products -------------------------------------------------------------------------------


def test_empty_slots_leave_no_trace_even_where_they_name_an_active_feature():
    codes = Codes(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([[1, 1], [3, 0]]), n_features=4)
    assert codes.dense().tolist() == [[0, 2, 0, 0], [0, 0, 0, 0]]
    assert codes.l0 == 0.5
    assert codes.fired.tolist() == [False, True, False, False]


@pytest.mark.parametrize(("n", "k"), [(64, 4), (512, 32), (512, 33), (4096, 8), (4097, 8), (40, 40), (24, 1)])
def test_the_largest_are_those_of_topk(n, k):
    for seed in SEEDS:
        x = random(17, n, seed=seed)
        x = torch.where(x > 1, x.round(), x)  # ties, some of them across the border
        values, indices = sparse.largest(x, k)
        assert torch.equal(values.sort().values, x.topk(k).values.sort().values)
        assert torch.equal(x.gather(1, indices), values)
        assert all(len(set(row)) == k for row in indices.tolist())


def test_a_product_in_pieces_is_the_product(monkeypatch):
    x, W, b = random(50, 6), random(64, 6, seed=1), random(64, seed=2)
    whole = sparse.strongest(x, W, b, 3)
    monkeypatch.setattr(sparse, "BUFFER", 64 * 7)
    pieces = sparse.strongest(x, W, b, 3)
    assert torch.allclose(whole[0], pieces[0], atol=1e-6)
    assert torch.equal(whole[1], pieces[1])


# --- gradients -----------------------------------------------------------------------------------------------


def naive_loss(dictionary: TopK, x: Tensor, dead: Tensor) -> tuple[Tensor, list[Tensor]]:
    """TopK with AuxK by the formulas, with dense codes and autograd; returns loss and gradients."""
    parameters = {name: p.detach().double().requires_grad_() for name, p in dictionary.named_parameters()}
    W_enc, b_enc, W_dec, b_dec = (parameters[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
    u = (x.double() - dictionary.centre_in.double()) * dictionary.scale_in.double()
    pre = u @ W_enc.T + b_enc

    def strongest(of: Tensor, k: int) -> Tensor:
        return torch.zeros_like(of).scatter(1, of.topk(k).indices, 1.0)

    residual = u - (pre.relu() * strongest(pre, dictionary.k)) @ W_dec - b_dec
    loss = residual.square().sum() / u.numel()
    if dead.any():
        n_dead, k_aux = int(dead.sum()), dictionary.k
        target = residual.detach()
        chosen = strongest(pre.masked_fill(~dead, -torch.inf), min(k_aux, n_dead)) * dead
        weight = min(1, n_dead / k_aux) / 32 / target.square().sum()
        # At a code of zero the gradient counts only where it asks for more.
        slope = -2 * weight * (target - (pre.relu() * chosen) @ W_dec).detach() @ W_dec.detach().T
        through = ((pre > 0) | (slope < 0)) * chosen
        codes = (pre.relu() * chosen).detach() + (pre - pre.detach()) * through
        loss = loss + weight * (target - codes @ W_dec).square().sum()
    loss.backward()
    gradients = {name: p.grad for name, p in parameters.items()}
    parallel = (gradients["W_dec"] * W_dec).sum(1, keepdim=True) * W_dec
    gradients["W_dec"] = gradients["W_dec"] - parallel
    return loss.detach(), gradients


@pytest.mark.parametrize("n_dead", [0, 3, 30])
@pytest.mark.parametrize("seed", SEEDS)
def test_loss_and_gradients_are_those_of_the_dense_formulas(seed, n_dead):
    dictionary, x = made(seed=seed)
    dead = torch.arange(dictionary.n_features) < n_dead
    with torch.no_grad():
        dictionary.b_enc[:n_dead] -= 1.0  # some of the dead are negative on every input, some are not
    loss, gradients = naive_loss(dictionary, x, dead)
    # In float64 the orders of addition differ and nothing else; in float32 there are its 24 bits.
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-4)):
        ours = dictionary.to(dtype)
        ours.zero_grad()
        result = ours.loss(x.to(dtype), x.to(dtype), dead=dead.nonzero().squeeze(1))
        result.total.backward()
        assert result.total.item() == pytest.approx(loss.item(), rel=tolerance)
        assert result.total.item() == pytest.approx(sum(part.item() for part in result.parts.values()))
        for name, parameter in ours.named_parameters():
            scale = gradients[name].abs().max().item()
            assert torch.allclose(parameter.grad.double(), gradients[name], atol=tolerance * scale), name


def test_the_encoder_has_the_gradient_of_its_input():
    dictionary, x = made()
    here = x[:7].clone().requires_grad_()
    direction = random(7, dictionary.n_features, seed=5)
    (dictionary.encode(here).dense() * direction).sum().backward()
    naive = x[:7].clone().requires_grad_()
    folded = dictionary.folded()
    pre = naive @ folded.W_enc.T + folded.b_enc
    kept = torch.zeros_like(pre).scatter(1, pre.topk(dictionary.k).indices, 1.0)
    (pre.relu() * kept * direction).sum().backward()
    assert torch.allclose(here.grad, naive.grad, atol=1e-5)


def test_the_decoder_has_the_gradients_of_a_product():
    codes = made()[0].encode(made()[1])
    W = random(40, 9).requires_grad_()
    values = codes.values.detach().requires_grad_()
    sparse.decode(values, codes.indices, W).sum().backward()  # sum: a gradient without memory of its own
    naive_W, naive = W.detach().requires_grad_(), values.detach().requires_grad_()
    (Codes(naive, codes.indices, 40).dense() @ naive_W).sum().backward()
    assert torch.allclose(W.grad, naive_W.grad, rtol=1e-4)
    assert torch.allclose(values.grad, naive.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", [0.5, 30.0])
def test_dead_features_get_a_gradient_into_the_encoder_however_deep_they_lie(depth):
    dictionary, x = made()
    dead = torch.arange(dictionary.n_features) < 8
    with torch.no_grad():
        dictionary.b_enc[dead] = -depth
    dictionary.loss(x, x, dead=dead.nonzero().squeeze(1)).parts["auxk"].backward()
    assert (dictionary.W_enc.grad[dead].norm(dim=1) > 0).all()
    if depth > 10:  # silent everywhere: all there is to learn is to rise
        assert (dictionary.b_enc.grad[dead] < 0).all()
    assert dictionary.W_enc.grad[~dead].abs().max() == 0
    assert dictionary.W_dec.grad[~dead].abs().max() == 0


def test_the_decoder_moves_along_the_sphere():
    dictionary, x = made()
    dictionary.loss(x, x, dead=NONE).total.backward()
    assert torch.linalg.vecdot(dictionary.W_dec.grad, dictionary.W_dec).abs().max() < 1e-6
    with torch.no_grad():
        dictionary.W_dec -= 10 * dictionary.W_dec.grad
    dictionary.after_step(0)
    assert torch.allclose(dictionary.W_dec.norm(dim=1), torch.ones(40))


# --- units ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_initialised_units_make_the_sample_mean_zero_and_mean_square_one(seed):
    dictionary, x = made(seed=seed)
    u = (x - dictionary.centre_in) * dictionary.scale_in
    assert u.mean(0).abs().max() < 1e-4
    assert u.square().mean().item() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_first_reconstruction_is_better_than_the_mean(seed):
    dictionary = TopK(12, 40, k=5, seed=seed)
    x = 7 * random(300, 12, seed=seed) + 50
    dictionary.initialise(x)
    assert fidelity(dictionary, x).fvu < 1


@pytest.mark.parametrize("seed", SEEDS)
def test_codes_are_lengths_along_the_decoder_rows_in_the_units_of_the_activations(seed):
    dictionary, x = made(seed=seed)
    bias = dictionary.b_dec / dictionary.scale_out + dictionary.centre_out
    assert torch.allclose(dictionary(x), dictionary.encode(x).dense() @ dictionary.W_dec + bias, atol=1e-3)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_folding_changes_no_code_and_no_reconstruction(seed, scale):
    dictionary, x = made(seed=seed, size=scale)
    folded = dictionary.folded()
    assert folded.centre_in.abs().max() == 0
    assert folded.scale_out == 1
    size = x.abs().max()
    assert torch.allclose(folded.encode(x).dense(), dictionary.encode(x).dense(), atol=1e-5 * size)
    assert torch.allclose(folded(x), dictionary(x), atol=1e-5 * size)
    assert torch.equal(folded.folded()(x), folded(x))


def test_a_transcoder_folds_too_and_reads_its_own_sites():
    read, write = Site(0, "mlp_in"), Site(0, "mlp_out")
    dictionary = TopK(12, 40, k=5, d_out=9, sites_in=read, sites_out=write)
    batch = {read: 3 * random(200, 12) + 1, write: 0.1 * random(200, 9, seed=1) - 2}
    dictionary.initialise(batch)
    x, y = dictionary.pair(batch)
    assert x.shape == (200, 12)
    assert y.shape == (200, 9)
    assert torch.allclose(dictionary.folded()(x), dictionary(x), atol=1e-5)
    loss = dictionary.loss(x, y, dead=NONE)
    assert loss.fvu.item() == pytest.approx(fidelity(dictionary, batch).fvu, rel=1e-4)


def test_any_leading_shape_is_encoded_alike():
    dictionary, x = made()
    grid = x[:24].view(2, 3, 4, 12)
    assert dictionary.encode(grid).values.shape == (2, 3, 4, 5)
    assert torch.allclose(dictionary(grid).view(24, 12), dictionary(x[:24]), atol=1e-4)
    assert dictionary(x[:0]).shape == (0, 12)


# --- fidelity ------------------------------------------------------------------------------------------------


def test_fvu_is_one_for_the_mean_and_zero_for_the_truth():
    x = 3 * random(500, 8) + 1000
    mean = exact(8)
    with torch.no_grad():
        mean.W_enc.zero_()
        mean.b_dec.copy_(x.double().mean(0))
    of_mean = fidelity(mean, x)
    assert of_mean.fvu == pytest.approx(1, abs=1e-6)
    assert of_mean.l0 == 0
    assert of_mean.dead == 1
    truth = fidelity(exact(8), x)
    assert truth.fvu == pytest.approx(0, abs=1e-12)
    assert truth.l0 == 8
    assert truth.dead == 0.5  # every number is positive, so the negative axes never fire


def test_fidelity_of_a_stream_is_that_of_the_whole():
    dictionary, x = made()
    whole = fidelity(dictionary, x)
    stream = fidelity(dictionary, iter(x.split(37)))
    assert (stream.fvu, stream.l0, stream.dead) == pytest.approx((whole.fvu, whole.l0, whole.dead))
    y = x - dictionary(x)
    naive = y.double().square().sum() / (x - x.mean(0)).double().square().sum()
    assert whole.fvu == pytest.approx(naive.item(), rel=1e-5)


# --- splicing ------------------------------------------------------------------------------------------------


def context(acts: Tensor) -> Context:
    positions = torch.arange(acts.shape[1]).expand(acts.shape[:2])
    return Context(positions, torch.zeros_like(positions), torch.ones(acts.shape[:2], dtype=torch.bool), Site(1))


def test_splicing_with_the_error_kept_changes_nothing():
    dictionary, x = made()
    acts = x.view(3, 100, 12)
    assert torch.allclose(splice(dictionary)(acts, context(acts)), acts, rtol=1e-6, atol=1e-6 * x.abs().max())
    half = acts.bfloat16()
    assert torch.equal(splice(dictionary)(half, context(half)), half)


def test_dropping_the_error_leaves_the_reconstruction():
    dictionary, x = made()
    acts = x.view(3, 100, 12)
    assert torch.equal(splice(dictionary, error="drop")(acts, context(acts)), dictionary(acts))


def test_a_changed_code_moves_the_activations_along_its_direction():
    dictionary, x = made()
    acts = x.view(3, 100, 12)
    double = splice(dictionary, change=lambda codes: Codes(2 * codes.values, codes.indices, codes.n_features))
    moved = double(acts, context(acts)) - acts
    assert torch.allclose(moved, dictionary.encode(acts).dense() @ dictionary.W_dec, atol=1e-3)


def test_a_dictionary_is_spliced_in_at_its_own_site_alone(tiny_model):
    tokens = tokens_of(2, 10)
    clean = tiny_model(tokens)

    def spliced(own: Site | tuple, at: Site) -> Tensor:
        dictionary = TopK(D_MODEL, 40, k=5, sites_in=own)
        dictionary.initialise(random(300, D_MODEL))
        with edited(tiny_model, {at: splice(dictionary)}):
            return tiny_model(tokens)

    # What leaves block 0 enters block 1.
    enters = Site(1, "resid_pre")
    for own, at in ((Site(0), Site(0)), (Site(0), enters), (enters, Site(0)), ((), Site(2))):
        assert torch.allclose(spliced(own, at), clean, rtol=1e-4, atol=1e-4)
    for own, at in ((Site(0), Site(1)), (Site(0), Site(0, "resid_pre")), (Site(1, "mlp_out"), Site(1))):
        with pytest.raises(ValueError, match=rf"belongs at '{own}', but was put at '{at}'; put it at its own site"):
            spliced(own, at)


def test_the_kept_error_has_no_gradient():
    dictionary, x = made()
    acts = x[None].clone().requires_grad_()
    splice(dictionary)(acts, context(acts)).sum().backward()
    through = x[None].clone().requires_grad_()
    dictionary(through).sum().backward()
    assert torch.allclose(acts.grad, through.grad, atol=1e-5)


# --- disk ----------------------------------------------------------------------------------------------------


def test_loading_gives_back_the_folded_dictionary_exactly(tmp_path):
    site = Site(2, "mlp_out")
    dictionary, x = made(sites_in=site)
    dictionary.provenance = {"model": "a1b2", "metrics": {"fvu": 0.25}}
    save(dictionary, tmp_path / "new" / "one")
    loaded = load_dictionary(tmp_path / "new" / "one")
    folded = dictionary.folded()
    for name, tensor in folded.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert torch.equal(loaded(x), folded(x))
    assert loaded.describe() == dictionary.describe()
    assert loaded.sites_in == (site,)
    assert loaded.provenance == dictionary.provenance
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    save(loaded, tmp_path / "again")
    assert torch.equal(load_dictionary(tmp_path / "again")(x), loaded(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_halves_the_file_and_keeps_the_centre(tmp_path, dtype):
    x = random(300, 32) + 200 * random(32, seed=1)  # so far out that the rounding of W_enc would show
    dictionary = TopK(32, 256, k=8)
    dictionary.initialise(x)
    save(dictionary, tmp_path / "full")
    save(dictionary, tmp_path / "half", dtype=dtype)
    full, half = (next((tmp_path / name).glob("*.safetensors")).stat().st_size for name in ("full", "half"))
    assert half < 0.6 * full
    loaded = load_dictionary(tmp_path / "half")
    assert loaded.W_dec.dtype == torch.float32
    # Rounding moves a product by about eps; selections at the border may change, so compare what is kept.
    assert fidelity(loaded, x).fvu == pytest.approx(fidelity(dictionary, x).fvu, rel=5 * torch.finfo(dtype).eps)


def test_saving_over_a_dictionary_replaces_it_and_leaves_other_files(tmp_path):
    (tmp_path / "card.md").write_text("about")
    save(made(seed=0)[0], tmp_path)
    save(made(seed=1)[0], tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".md", ".safetensors"]
    assert torch.equal(load_dictionary(tmp_path).W_dec, made(seed=1)[0].W_dec)


def test_a_dictionary_knows_the_model_it_was_trained_on(tiny_model):
    dictionary, _ = made()
    dictionary.check(tiny_model)  # says nothing of where it comes from
    dictionary.provenance = {"model": fingerprint(tiny_model)}
    dictionary.check(tiny_model)
    dictionary.provenance = {"model": "a1b2"}
    with pytest.raises(ValueError, match=r"trained on another model, with fingerprint a1b2, not .*; load that model"):
        dictionary.check(tiny_model)


@pytest.mark.parametrize("sites", [{"sites_in": Site(9)}, {"sites_in": Site(1, "mlp_in"), "sites_out": Site(9)}])
def test_a_dictionary_of_a_site_that_the_model_lacks_is_not_its_own(tiny_model, sites):
    with pytest.raises(ValueError, match=r"Site\(layer=9, .* does not exist in this model, which has 3 layers"):
        TopK(12, 40, k=5, **sites).check(tiny_model)


@pytest.mark.parametrize("file", [1, 2])
def test_a_save_that_fails_at_either_file_leaves_the_earlier_dictionary(tmp_path, monkeypatch, file):
    dictionary, x = made()
    save(dictionary, tmp_path)
    written = []

    def full(descriptor):
        written.append(descriptor)
        if len(written) == file:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(made(seed=1)[0], tmp_path)
    assert torch.equal(load_dictionary(tmp_path)(x), dictionary.folded()(x))
    assert not list(tmp_path.glob(".*"))
    save(made(seed=2)[0], tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_is_understood_from_the_writer_of_tensors(tmp_path, monkeypatch):
    def full(tensors, file):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    dictionary, x = made()
    with monkeypatch.context() as patch:
        patch.setattr(files, "save_file", full)
        with pytest.raises(
            OSError, match=r"could not be written \(No space left on device\); nothing was there before"
        ):
            save(dictionary, tmp_path)
        patch.undo()
        save(dictionary, tmp_path)
        patch.setattr(files, "save_file", full)
        with pytest.raises(
            OSError, match=r"dictionary\.json' could not .*; what was there before stays readable"
        ) as caught:
            save(made(seed=1)[0], tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert torch.equal(load_dictionary(tmp_path)(x), dictionary.folded()(x))


# --- bad input -----------------------------------------------------------------------------------------------


def saved(tmp_path):
    save(made()[0], tmp_path)
    return tmp_path / "dictionary.json", next(tmp_path.glob("*.safetensors"))


def edit_manifest(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_missing_directory_or_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere' is not a directory; give \"tiny\", a directory"):
        load_dictionary(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds none of dictionary.json, sae_weights.*; give \"tiny\""):
        load_dictionary(tmp_path)
    _, tensors = saved(tmp_path)
    tensors.unlink()
    with pytest.raises(ValueError, match=r"names 'dictionary-\w+.safetensors', which is not beside it; copy both"):
        load_dictionary(tmp_path)


@pytest.mark.parametrize("spoil", [lambda b: b[:-7], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b""])
def test_truncated_and_corrupt_tensors_are_refused(tmp_path, spoil):
    _, tensors = saved(tmp_path)
    tensors.write_bytes(spoil(tensors.read_bytes()))
    with pytest.raises(ValueError, match=r"truncated, corrupt or swapped.*Copy both files again"):
        load_dictionary(tmp_path)


@pytest.mark.parametrize("suffix", ["*.safetensors", "dictionary.json"])
def test_files_of_two_dictionaries_of_one_shape_are_not_mixed(tmp_path, suffix):
    for seed, name in enumerate("ab"):
        save(made(seed=seed)[0], tmp_path / name)
    (mine,), (other,) = ([*(tmp_path / name).glob(suffix)] for name in "ab")
    shutil.copy(other, mine)
    with pytest.raises(ValueError, match=r"truncated, corrupt or swapped|which is not beside it; copy both files"):
        load_dictionary(tmp_path / "a")


def test_a_manifest_of_another_kind_is_refused(tmp_path):
    manifest, _ = saved(tmp_path)
    edit_manifest(manifest, architecture="Spiral")
    with pytest.raises(ValueError, match=r"architecture 'Spiral'; this workbench knows TopK"):
        load_dictionary(tmp_path)
    edit_manifest(manifest, architecture="TopK")
    for wrong in ({"options": {"threshold": 3}}, {"options": {"k": 99}}, {"sites_in": ["nowhere"]}, {"n_features": -2}):
        before = manifest.read_text()
        edit_manifest(manifest, **wrong)
        with pytest.raises(ValueError, match=r"dictionary\.json' does not describe a TopK \("):
            load_dictionary(tmp_path)
        manifest.write_text(before)
    edit_manifest(manifest, n_features=41)
    with pytest.raises(ValueError, match="should hold tensors"):
        load_dictionary(tmp_path)
    edit_manifest(manifest, format=99)
    with pytest.raises(ValueError, match=r"has format 99, this workbench reads 1; update workbench"):
        load_dictionary(tmp_path)
    manifest.write_text("{")
    with pytest.raises(ValueError, match="is not a manifest of workbench"):
        load_dictionary(tmp_path)


def test_what_no_file_should_hold_overwrites_nothing(tmp_path):
    dictionary, x = made()
    save(dictionary, tmp_path)
    spoilt, large, told = (made(seed=1)[0] for _ in range(3))
    with torch.no_grad():
        spoilt.W_dec[3, 4] = math.nan
        large.W_enc *= 1e6
    told.provenance = {"metrics": {"fvu": torch.tensor(0.1)}}
    with pytest.raises(
        ValueError, match=r"W_dec would hold NaN or infinity with torch\.float32, so nothing is written"
    ):
        save(spoilt, tmp_path)
    with pytest.raises(ValueError, match=r"W_enc, b_enc would hold NaN or infinity with torch\.float16, so nothing"):
        save(large, tmp_path, dtype=torch.float16)
    with pytest.raises(TypeError, match=r"only what JSON can hold, but: .*; nothing is written.*of a tensor"):
        save(told, tmp_path)
    with pytest.raises(ValueError, match="W_dec would hold NaN or infinity, so nothing is written"):
        export(spoilt, tmp_path / "theirs", "saelens")
    assert not (tmp_path / "theirs").exists()
    assert torch.equal(load_dictionary(tmp_path)(x), dictionary.folded()(x))


def test_a_dictionary_that_cannot_be_is_explained(as_user):
    with pytest.raises(ValueError, match=r"k must lie in 1\.\.40 \(n_features\), got 2\.5"):
        TopK(12, 40, k=2.5)  # pyright: ignore[reportArgumentType]
    for widths in ((0, 40), (12, 0), (-1, 40)):
        with pytest.raises(ValueError, match="Widths and n_features are at least 1, got"):
            TopK(*widths, k=1)
    with pytest.raises(TypeError, match=r"given as Site\(layer, stream\) or a list of such, got '1\.mlp_in'"):
        TopK(12, 40, k=5, sites_in="1.mlp_in")  # pyright: ignore[reportArgumentType]


def test_the_wrong_width_is_named_with_the_right_one():
    dictionary, _ = made()
    with pytest.raises(ValueError, match=r"takes activations of width 12 here, got shape \(4, 13\)"):
        dictionary.encode(torch.zeros(4, 13))
    with pytest.raises(TypeError, match=r"floating-point numbers, got torch.int64"):
        dictionary.pair(torch.zeros(4, 12, dtype=torch.long))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_activations_that_are_no_numbers_are_counted(bad):
    dictionary, x = made()
    x[[3, 8], 2] = bad
    with pytest.raises(ValueError, match="2 of 300 activations hold NaN or infinity"):
        dictionary.encode(x)
    with pytest.raises(ValueError, match="2 of 300 activations hold NaN or infinity"):
        TopK(12, 40, k=5).initialise(x)


def test_activations_too_large_to_square_are_refused():
    with pytest.raises(ValueError, match=r"as large as .*e\+20 have squares beyond torch.float32; divide them"):
        TopK(12, 40, k=5).initialise(1e20 * random(50, 12))


@pytest.mark.parametrize("sample", [torch.full((50, 12), 3.3), torch.zeros(50, 12), torch.ones(1, 12)])
def test_a_sample_that_does_not_vary_is_refused(sample):
    with pytest.raises(ValueError, match="do not vary gives no unit of length"):
        TopK(12, 40, k=5).initialise(sample)
    with pytest.raises(ValueError, match="fidelity needs at least 2 different activations"):
        fidelity(TopK(12, 40, k=5), sample)


def test_batches_that_do_not_fit_the_sites_are_explained():
    dictionary = TopK(12, 40, k=5, sites_in=Site(1))
    with pytest.raises(ValueError, match=r"lacks '1.resid_post'; it holds '0.resid_post'"):
        dictionary.pair({Site(0): torch.zeros(4, 12)})
    with pytest.raises(ValueError, match="names no site"):
        TopK(12, 40, k=5).pair({Site(0): torch.zeros(4, 12)})
    transcoder = TopK(12, 40, k=5, sites_in=Site(1, "mlp_in"), sites_out=Site(1, "mlp_out"))
    with pytest.raises(ValueError, match=r"reads '1.mlp_in' and rebuilds '1.mlp_out', and one tensor is one site"):
        transcoder.pair(torch.zeros(4, 12))
    uneven = {Site(1, "mlp_in"): torch.zeros(4, 12), Site(1, "mlp_out"): torch.zeros(3, 12)}
    with pytest.raises(ValueError, match=r"holds 4 activations at '1.mlp_in' and 3 at '1.mlp_out'; row by row"):
        transcoder.pair(uneven)
    with pytest.raises(ValueError, match=r"as one tensor, so of one shape; .* '1.mlp_out' of shape \(3, 12\)"):
        Crosscoder(12, 40, k=5, sites_in=[*uneven]).pair(uneven)
    with pytest.raises(ValueError, match="Only a dictionary that rebuilds the site it reads can be spliced"):
        splice(transcoder)
    with pytest.raises(ValueError, match=r"error must be .keep. or .drop., got 'ignore'"):
        inspect.unwrap(splice)(dictionary, error="ignore")  # below the type check that only tests have


def test_units_are_measured_once():
    dictionary, x = made()
    with pytest.raises(ValueError, match="is initialised; other units would change what it computes"):
        dictionary.initialise(x)


@pytest.mark.parametrize("k", [0, 41])
def test_k_lies_among_the_features(k):
    with pytest.raises(ValueError, match=rf"k must lie in 1..40 \(n_features\), got {k}"):
        TopK(12, 40, k=k)


def test_topk_takes_one_site():
    with pytest.raises(ValueError, match="reads one site and rebuilds one"):
        TopK(12, 40, k=5, sites_in=[Site(0), Site(1)])


def test_an_unknown_precision_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"dtype must be float32, float16 or bfloat16, got torch\.int8"):
        save(made()[0], tmp_path, dtype=torch.int8)
