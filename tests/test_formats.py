"""Dictionaries of other packages: what they compute is what they computed, and what is spoilt is named.

The fixtures were written by the packages themselves, see peers.py.
"""

import json
import logging
import os
import shutil
import subprocess
import types
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import BOS, D_MODEL, N_CTX, WORDS, tokens_of
from safetensors.torch import load_file, save_file
from test_dictionaries_architectures import SEED, gaussian, rough
from torch import Tensor

from workbench.dictionaries import Dictionary, JumpReLU, ReLU, TopK, export, fidelity, load_dictionary, save, splice
from workbench.dictionaries.storage import UNITS
from workbench.models import Site, edited, record
from workbench.training import TrainConfig, train

FIXTURES = Path(__file__).parent / "fixtures"
FORMATS = ("saelens", "sparsify", "dictionary_learning")
MADE = sorted(path.parent for path in FIXTURES.rglob("expected.safetensors"))
WEIGHTS = {"saelens": "sae_weights.safetensors", "sparsify": "sae.safetensors", "dictionary_learning": "ae.pt"}
CONFIGS = {"saelens": "cfg.json", "sparsify": "cfg.json", "dictionary_learning": "config.json"}
RESIDUAL = ((Site(1),), (Site(1),))
MLP = ((Site(1, "mlp_in"),), (Site(1, "mlp_out"),))
SITES = {"saelens/jumprelu": ((), ()), "saelens/standard_plain": ((Site(0, "mlp_out"),),) * 2}
"""Of the fixtures that are not at 1.resid_post, nor transcoders."""

# Which of ours each format has.
HAS = {
    "saelens": {"TopK", "ReLU", "Gated", "JumpReLU", "BatchTopK", "Matryoshka", "FeatureChoice"},
    "sparsify": {"TopK"},
    "dictionary_learning": {"TopK", "ReLU", "Gated", "JumpReLU", "BatchTopK", "Matryoshka", "FeatureChoice"},
}

SKIPS = hasattr(TopK(8, 24, k=3), "W_skip")
"""Whether our transcoders can have a skip connection."""


@pytest.fixture(autouse=True)
def _told():
    logging.warning("SEED = %s", SEED)  # shown with a test that fails


def arrays_of(directory: Path) -> dict[str, Tensor]:
    """What a foreign file holds, read plainly."""
    (path,) = [directory / name for name in WEIGHTS.values() if (directory / name).exists()]
    return torch.load(path, weights_only=True) if path.suffix == ".pt" else load_file(path)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def made(name: str, **more) -> tuple[Dictionary, Tensor]:
    """One of ours with weights in no special state, in float32, and activations for it."""
    dictionary, x = rough(name, SEED, **more)
    return dictionary.float(), x.float()


# --- theirs here ---------------------------------------------------------------------------------------------


def check_against_expected(directory: Path, root: Path) -> None:
    form, case = directory.relative_to(root).parts[:2]
    expected = load_file(directory / "expected.safetensors")
    if case == "skip_transcoder" and not SKIPS:
        with pytest.raises(ValueError, match=r"config that describes no dictionary: .* 'skip'"):
            load_dictionary(directory)
        return
    dictionary, x = load_dictionary(directory), expected["x"]
    # Each number is a sum of some ten products: in float32 the orders of addition differ, and nothing else.
    scale = float(expected["y"].abs().max())
    assert torch.allclose(dictionary.encode(x).dense(), expected["codes"], atol=1e-6 * scale)
    assert torch.allclose(dictionary(x), expected["y"], atol=1e-6 * scale)
    assert (expected["codes"] > 0).float().mean() > 0.05
    transcodes = "transcoder" in case
    sites = SITES.get(f"{form}/{case}", MLP if transcodes else RESIDUAL)
    assert (dictionary.sites_in, dictionary.sites_out) == sites
    assert dictionary.autoencodes is not transcodes
    assert not any(parameter.requires_grad for parameter in dictionary.parameters())
    assert dictionary.provenance["format"] == form


@pytest.mark.parametrize("directory", MADE, ids=lambda path: str(path.relative_to(FIXTURES)))
def test_what_another_package_wrote_computes_what_it_computed_there(directory):
    check_against_expected(directory, FIXTURES)


@pytest.mark.parametrize("directory", MADE, ids=lambda path: str(path.relative_to(FIXTURES)))
def test_what_is_read_and_written_again_is_the_same_file(tmp_path, directory):
    form, case = directory.relative_to(FIXTURES).parts[:2]
    if case == "skip_transcoder" and not SKIPS:
        pytest.skip("needs skip=True")
    dictionary = load_dictionary(directory)
    export(dictionary, tmp_path, form)
    theirs, ours = arrays_of(directory), arrays_of(tmp_path)
    if "threshold" in theirs and theirs["threshold"].ndim:
        theirs["threshold"] = theirs["threshold"].clamp(min=0)  # one below zero is felt as zero
    if case == "topk_rescaled":  # the one whose rows are given norm one, as its codes are lengths along such rows
        theirs["W_dec"] = F.normalize(theirs["W_dec"])
        assert torch.allclose(ours["W_dec"], theirs["W_dec"], atol=1e-6)
    elif case == "topk" and form == "dictionary_learning":
        assert same({**theirs, "threshold": torch.tensor(-1.0)}, ours)
    else:
        assert same(theirs, ours)
    again = load_dictionary(tmp_path)
    assert same(again.state_dict(), dictionary.state_dict())
    assert again.describe() == dictionary.describe()
    config, kept = (json.loads((path / CONFIGS[form]).read_text()) for path in (tmp_path, directory))
    for part in ("metadata", "trainer"):  # where these packages keep what was trained, and on what
        told = kept.get(part, {}) | ({"sae_lens_version": "6.0.0"} if part in kept and part == "metadata" else {})
        assert {key: config[part][key] for key in told} == told


def test_a_dictionary_of_another_package_serves_like_ours(tiny_model, tmp_path):
    theirs = ReLU(D_MODEL, 64, sites_in=Site(1))
    theirs.W_dec.data *= torch.linspace(0.2, 3, 64)[:, None]  # as no dictionary of ours would have them
    export(theirs, tmp_path / "theirs", "saelens")
    dictionary, tokens = load_dictionary(tmp_path / "theirs"), tokens_of(4, 12)
    dictionary.check(tiny_model)
    clean, x = tiny_model(tokens), record(tiny_model, tokens, [Site(1)])[Site(1)].flatten(0, 1)
    with edited(tiny_model, {Site(1): splice(dictionary)}):
        assert torch.allclose(tiny_model(tokens), clean, rtol=1e-4, atol=1e-4)
    naive = (x @ theirs.W_enc.T).relu() @ theirs.W_dec
    fvu = (x - naive).square().sum() / (x - x.mean(0)).square().sum()
    assert fidelity(dictionary, x).fvu == pytest.approx(fvu.item(), rel=1e-4)
    save(dictionary, tmp_path / "ours")
    assert torch.equal(load_dictionary(tmp_path / "ours")(x), dictionary(x))


def test_heads_are_spliced_end_to_end(tiny_model):
    site, tokens = Site(1, "z"), tokens_of(3, 10)
    z, clean = record(tiny_model, tokens, [site])[site], tiny_model(tokens)
    dictionary = TopK(z[0, 0].numel(), 80, k=5, sites_in=site)
    dictionary.initialise(z.flatten(0, 1).flatten(1))
    with edited(tiny_model, {site: splice(dictionary)}):
        assert torch.allclose(tiny_model(tokens), clean, rtol=1e-4, atol=1e-4)


def test_what_training_would_change_is_not_trained(tmp_path):
    x = [gaussian(64, 8, seed=SEED)]
    with pytest.raises(
        ValueError, match=r"rows of W_dec have lengths from [\d.]+ to [\d.]+, and training would make them"
    ):
        train(load_dictionary(FIXTURES / "saelens" / "standard"), x, TrainConfig(steps=1))
    export(JumpReLU(8, 24, l0=4), tmp_path, "saelens")
    dictionary = load_dictionary(tmp_path)
    assert isinstance(dictionary, JumpReLU)
    with pytest.raises(ValueError, match="has no l0 to aim at; set its l0"):
        train(dictionary, x, TrainConfig(steps=1))
    dictionary.l0 = 4
    assert len(list(train(dictionary, x, TrainConfig(steps=1)))) == 1


# --- ours there ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", sorted({*HAS["saelens"], "TopK-signed", "MatchingPursuit"}))
def test_ours_come_back_from_every_format_that_has_them(tmp_path, name, form):
    site = Site(2, "mlp_out")
    dictionary, x = made(name, sites_in=site)
    dictionary.provenance = {"model": "a1b2", "metrics": {"fvu": 0.25}}
    if name not in HAS[form]:
        with pytest.raises(ValueError, match=r"computes what .* does; save it as it is"):
            export(dictionary, tmp_path, form)
        assert not any(tmp_path.iterdir())
        return
    export(dictionary, tmp_path / "one", form)
    loaded, folded = load_dictionary(tmp_path / "one"), dictionary.folded()
    assert loaded.sites_in == loaded.sites_out == (site,)
    assert loaded.provenance == dictionary.provenance
    if form == "saelens" or name in ("JumpReLU", "FeatureChoice"):  # formats that need subtract nothing
        assert torch.equal(loaded.encode(x).dense(), folded.encode(x).dense())
        assert torch.equal(loaded(x), folded(x))
    back, sent = loaded.folded().state_dict(), folded.state_dict()
    for key in (sent.keys() & back.keys()) - UNITS:
        assert torch.allclose(back[key], sent[key], atol=1e-6 * float(x.abs().max())), key
    export(loaded, tmp_path / "two", form)
    assert same(arrays_of(tmp_path / "one"), arrays_of(tmp_path / "two"))


@pytest.mark.parametrize("form", FORMATS)
def test_transcoders_come_back(tmp_path, form):
    sites = {"sites_in": Site(1, "mlp_in"), "sites_out": Site(1, "mlp_out")}
    kinds = {"saelens": partial(ReLU, d_out=6), "sparsify": partial(TopK, k=3), "dictionary_learning": ReLU}
    dictionary = kinds[form](8, 24, **sites)
    read, written = sites.values()
    dictionary.initialise({read: gaussian(50, 8, seed=1) + 3, written: gaussian(50, dictionary.d_out, seed=2) - 3})
    if form == "dictionary_learning":
        with pytest.raises(ValueError, match="dictionary_learning has no class that computes what"):
            export(dictionary, tmp_path, form)
        return
    export(dictionary, tmp_path, form)
    loaded, x = load_dictionary(tmp_path), gaussian(50, 8, seed=SEED)
    assert (loaded.sites_in, loaded.sites_out) == ((sites["sites_in"],), (sites["sites_out"],))
    assert torch.equal(loaded(x), dictionary.folded()(x))


def test_heads_are_told_to_saelens_in_its_own_words(tmp_path):
    for number, site in enumerate([Site(1, "z"), Site(1, "z", head=2), Site(1, "mlp_in")]):
        export(ReLU(8, 24, sites_in=site), tmp_path / str(number), "saelens")
        config = json.loads((tmp_path / str(number) / "cfg.json").read_text())
        assert config["metadata"]["hook_name"] == site.hook
        assert config["metadata"]["hook_head_index"] == site.head
        assert config["reshape_activations"] == ("hook_z" if site == Site(1, "z") else "none")
        assert load_dictionary(tmp_path / str(number)).sites_in == (site,)


PEERS = Path(os.environ.get("WORKBENCH_PEERS", "nowhere"))


def peer(form: str, verb: str, *directories: Path) -> None:
    command = [PEERS / form / "bin" / "python", Path(__file__).parent / "peers.py", verb, form, *directories]
    subprocess.run([*map(str, command)], check=True, capture_output=True)


@pytest.mark.skipif(not PEERS.is_dir(), reason="needs WORKBENCH_PEERS, a folder of environments of the packages")
@pytest.mark.parametrize("form", FORMATS)
def test_the_packages_themselves_read_ours_and_we_what_they_write_today(tmp_path, form):
    written = []
    for name in sorted(HAS[form]):
        dictionary, x = made(name, sites_in=Site(1, "z"))
        written.append(tmp_path / name)
        export(dictionary, tmp_path / name, form)
        save_file({"x": x}, tmp_path / name / "x.safetensors")
    peer(form, "read", *written)
    for directory in written:
        theirs, ours = load_file(directory / "expected.safetensors"), load_dictionary(directory)
        x, scale = theirs["x"], float(theirs["y"].abs().max())
        assert torch.allclose(ours.encode(x).dense(), theirs["codes"], atol=1e-6 * scale), directory
        assert torch.allclose(ours(x), theirs["y"], atol=1e-6 * scale), directory
        errors = (ours.encode(x).dense() - theirs["codes"]).abs().max(), (ours(x) - theirs["y"]).abs().max()
        logging.info("%s %s: codes %.1e, y %.1e, largest %.1f", form, directory.name, *errors, scale)
    peer(form, "make", tmp_path / "made")
    for expected in (tmp_path / "made").rglob("expected.safetensors"):
        check_against_expected(expected.parent, tmp_path / "made")


# --- Gemma Scope ---------------------------------------------------------------------------------------------


def archive(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **{key: np.asarray(array) for key, array in arrays.items()})  # pyright: ignore[reportArgumentType]


def scope(directory: Path, *, d: int = 8, n: int = 24, seed: int = 0, kind: str = "npz", **more) -> dict[str, Tensor]:
    """Write ``params.npz``, or ``params.safetensors`` and its config, as they lie on the hub; return the arrays."""
    W_dec = F.normalize(gaussian(n, d, seed=seed))
    threshold, b_enc = 0.5 + gaussian(n, seed=seed + 1).abs(), gaussian(n, seed=seed + 2) / 5
    params = {
        "W_enc": W_dec.T,
        "W_dec": W_dec,
        "b_enc": b_enc,
        "b_dec": gaussian(d, seed=seed + 3),
        "threshold": threshold,
    }
    directory.mkdir(parents=True, exist_ok=True)
    if kind == "npz":
        archive(directory / "params.npz", params)
    else:
        config = {"architecture": "jump_relu", "model_name": "gemma-v3-270m-pt", "affine_connection": False, **more}
        (directory / "config.json").write_text(json.dumps(config))
        lower = {key.lower(): tensor.contiguous() for key, tensor in params.items()}
        save_file(lower, directory / "params.safetensors")
    return params


def naive_jumprelu(params: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    z = x @ params["W_enc"] + params["b_enc"]
    codes = z.relu() * (z > params["threshold"])
    return codes, codes @ params["W_dec"] + params["b_dec"]


def check_against_naive(dictionary: Dictionary, params: dict[str, Tensor]) -> None:
    x = 3 * gaussian(40, 8, seed=5)
    codes, y = naive_jumprelu(params, x)
    assert torch.allclose(dictionary.encode(x).dense(), codes, atol=1e-5)
    assert torch.allclose(dictionary(x), y, atol=1e-5)


@pytest.mark.parametrize(
    ("repository", "sites"),
    [
        ("gemma-scope-2b-pt-res", ((Site(12),), (Site(12),))),
        ("models--google--gemma-scope-9b-pt-att/snapshots/a1b2", ((Site(12, "z"),), (Site(12, "z"),))),
        ("gemma-scope-2b-pt-mlp", ((Site(12, "mlp_out"),), (Site(12, "mlp_out"),))),
        ("gemma-scope-2b-pt-transcoders", ((), (Site(12, "mlp_out"),))),
        ("renamed", ((), ())),
    ],
)
def test_the_first_gemma_scope_is_read_where_it_lies(tmp_path, repository, sites):
    directory = tmp_path / repository / "layer_12" / "width_16k" / "average_l0_22"
    params = scope(directory)
    dictionary = load_dictionary(directory)
    check_against_naive(dictionary, params)
    assert (dictionary.sites_in, dictionary.sites_out) == sites
    assert dictionary.options["l0"] == 22


@pytest.mark.parametrize(
    ("points", "sites"),
    [
        ({"hf_hook_point_in": "model.layers.5.output"}, ((Site(5),), (Site(5),))),
        ({"hf_hook_point_in": "model.layers.5.self_attn.o_proj.input"}, ((Site(5, "z"),), (Site(5, "z"),))),
        (
            {
                "hf_hook_point_in": "model.layers.5.pre_feedforward_layernorm.output",
                "hf_hook_point_out": "model.layers.5.post_feedforward_layernorm.output",
            },
            ((Site(5, "mlp_in"),), (Site(5, "mlp_out"),)),
        ),
    ],
)
def test_the_second_gemma_scope_is_read_by_its_config(tmp_path, points, sites):
    params = scope(tmp_path, kind="safetensors", **points)
    dictionary = load_dictionary(tmp_path)
    check_against_naive(dictionary, params)
    assert (dictionary.sites_in, dictionary.sites_out) == sites


def bench_gemma_scope() -> types.ModuleType:
    loader = SourceFileLoader("bench", str(Path(__file__).parent / "bench" / "bench_gemma_scope.py"))
    module = types.ModuleType("bench")
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("repository", ["gemma-scope-2b-pt-res", "gemma-scope-2b-pt-att"])
def test_the_figures_of_a_downloaded_dictionary_are_those_of_the_formulas(
    tmp_path, capsys, loaded, model_directories, repository
):
    directory = tmp_path / repository / "layer_1" / "width_64" / "average_l0_9"
    params = scope(directory, d=D_MODEL, n=64)
    words = [WORDS[i - 3] for i in tokens_of(1, 500)[0, 1:].tolist()]
    (tmp_path / "text.txt").write_text(" ".join(words))
    given = [tmp_path / "text.txt", "--model", model_directories["gemma2"], "--dictionary", directory, "--tokens", 240]
    measured = bench_gemma_scope().main([*map(str, given), "--device", "cpu", "--fvu", "0.25"])
    shown = capsys.readouterr().out
    model, site = loaded["gemma2"], load_dictionary(directory).sites_in[0]
    rows = torch.tensor([3 + WORDS.index(word) for word in words[: 240 // (N_CTX - 1) * (N_CTX - 1)]])
    rows = F.pad(rows.view(-1, N_CTX - 1), (1, 0), value=BOS)
    acts = record(model, rows, [site])[site]
    x = acts.flatten(2)[:, 1:].flatten(0, 1)
    codes, y = naive_jumprelu(params, x)
    put = acts.flatten(2).clone()
    put[:, 1:] = y.view(len(rows), N_CTX - 1, -1)
    losses = []
    for edits in ({}, {site: lambda acts, context: put.view_as(acts)}):
        with edited(model, edits):
            losses.append(F.cross_entropy(model(rows)[:, 1:-1].flatten(0, 1), rows[:, 2:].flatten()).item())
    assert measured["FVU"] == pytest.approx(float((x - y).square().sum() / (x - x.mean(0)).square().sum()), rel=1e-4)
    assert measured["L0"] == pytest.approx(float((codes > 0).sum(1).float().mean()), rel=1e-3)
    assert measured["clean"] == pytest.approx(losses[0], rel=1e-4)
    assert measured["delta"] == pytest.approx(losses[1] - losses[0], abs=1e-4)
    assert "FVU" in shown
    assert "0.25" in shown
    assert "       9.0" in shown
    assert "most memory held" in shown


# --- the hub -------------------------------------------------------------------------------------------------


def cached(root: Path, repo: str, folder: str, fixture: Path) -> None:
    """Put a fixture where the hub's client keeps what it has downloaded."""
    home = root / f"models--{repo.replace('/', '--')}"
    shutil.copytree(fixture, home / "snapshots" / "a1b2" / folder)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("a1b2")


def test_a_folder_of_the_hub_is_downloaded_alone(monkeypatch, tmp_path):
    repository = tmp_path / "theirs"
    for name in ("a/layers.1", "b/layers.2"):
        shutil.copytree(FIXTURES / "sparsify" / "topk" / "layers.1", repository / name)
        (repository / name / "optimizer.pt").write_text("large")
    listed = [types.SimpleNamespace(rfilename=str(p.relative_to(repository))) for p in repository.rglob("*.*")]
    asked = []

    def model_info(repo, timeout):
        return types.SimpleNamespace(siblings=listed)

    def snapshot_download(repo, allow_patterns):
        asked.append(repo)
        for path in repository.rglob("*"):
            if any(path.relative_to(repository).match(pattern) for pattern in allow_patterns):
                (tmp_path / "ours" / path.relative_to(repository)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, tmp_path / "ours" / path.relative_to(repository))
        return str(tmp_path / "ours")

    monkeypatch.setattr(huggingface_hub, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    dictionary = load_dictionary("owner/repository/b/layers.2")
    assert dictionary.sites_in == (Site(2),)
    assert asked == ["owner/repository"]
    downloaded = sorted(path.name for path in (tmp_path / "ours").rglob("*.*") if path.is_file())
    assert downloaded == ["cfg.json", "sae.safetensors"]
    with pytest.raises(
        ValueError, match=r"'owner/repository' .* holds no dictionary in 'its top folder'; the nearest .* a/layers\.1"
    ):
        load_dictionary("owner/repository")


def test_without_a_network_what_was_downloaded_is_read_and_else_named(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    cached(tmp_path, "owner/repository", "resid/one", FIXTURES / "saelens" / "topk")
    assert isinstance(load_dictionary("owner/repository/resid/one"), TopK)
    words = (
        r"'owner/repository/resid/two' is not a directory, and the Hugging Face hub cannot be reached .* The nearest "
        r"on this machine: 'owner/repository/resid/one', 'tiny'\. To have it offline, load it once where there is a"
    )
    with pytest.raises(ValueError, match=words):
        load_dictionary("owner/repository/resid/two")
    with pytest.raises(ValueError, match=r"'nowhere/at/all' is not a directory; give"):
        load_dictionary(Path("nowhere/at/all"))
    with pytest.raises(ValueError, match="neither a directory nor in a repository of the Hugging Face hub"):
        load_dictionary("not a/name that can be")


# --- bad input -----------------------------------------------------------------------------------------------


def spoilt(tmp_path: Path, case: str, *, tensors=None, config=None) -> Path:
    """Return a copy of a fixture with changed arrays or config."""
    form, source = case.partition("/")[0], FIXTURES / case
    source = source if (source / WEIGHTS[form]).exists() else next(source.iterdir())
    directory = Path(shutil.copytree(source, tmp_path / source.name))
    if tensors is not None:
        arrays = {key: tensor.clone() for key, tensor in tensors(arrays_of(directory)).items()}
        write = torch.save if form == "dictionary_learning" else save_file
        write(arrays, directory / WEIGHTS[form])
    if config is not None:
        path = directory / CONFIGS[form]
        path.write_text(json.dumps(config(json.loads(path.read_text()))))
    return directory


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("cut", [lambda b: b[:-7], lambda b: b[:100], lambda b: b""])
def test_truncated_files_are_named(tmp_path, form, cut):
    directory = spoilt(tmp_path, f"{form}/topk")
    weights, config = directory / WEIGHTS[form], directory / CONFIGS[form]
    whole = config.read_bytes()
    config.write_bytes(cut(whole))
    with pytest.raises(ValueError, match=f"{config.name}' is missing, truncated, corrupt, .*; copy or download it"):
        load_dictionary(directory)
    config.write_bytes(whole)
    weights.write_bytes(cut(weights.read_bytes()))
    with pytest.raises(ValueError, match=f"{weights.name}' is missing, truncated, corrupt, .*; copy or download it"):
        load_dictionary(directory)
    config.unlink()
    with pytest.raises(ValueError, match=f"{config.name}' is missing"):
        load_dictionary(directory)


@pytest.mark.parametrize(
    ("case", "tensors", "words"),
    [
        ("saelens/topk", lambda t: {k: v for k, v in t.items() if k != "b_enc"}, "b_enc is missing"),
        ("saelens/topk", lambda t: t | {"spare": t["b_dec"]}, "spare is not known"),
        ("saelens/topk", lambda t: t | {"W_enc": t["W_dec"]}, r"W_enc has shape \[24, 8\], not \[8, 24\]"),
        ("saelens/topk", lambda t: t | {"b_dec": t["b_dec"] / 0}, "b_dec holds NaN or infinity"),
        ("saelens/topk_rescaled", lambda t: {"W_enc": t["W_enc"]}, r"do not describe a dictionary \(KeyError\('W_dec'"),
        ("saelens/gated", lambda t: arrays_of(FIXTURES / "saelens" / "topk"), "b_enc is not known"),
        ("saelens/standard", lambda t: t | {"scaling_factor": 2 * t["b_enc"]}, "scaling_factor is not known"),
        ("sparsify/topk", lambda t: t | {"W_skip": t["W_dec"]}, "W_skip is not known"),
        ("sparsify/topk", lambda t: {k: v for k, v in t.items() if k != "W_dec"}, "W_dec is missing"),
        ("dictionary_learning/gated", lambda t: t | {"r_mag": t["r_mag"][:3]}, r"r_mag has shape \[3\], not \[24\]"),
        ("dictionary_learning/batchtopk", lambda t: t | {"threshold": torch.tensor(-1.0)}, "threshold that was never"),
    ],
)
def test_arrays_that_are_not_what_the_config_says_are_named(tmp_path, case, tensors, words):
    directory = spoilt(tmp_path, case, tensors=tensors)
    with pytest.raises(ValueError, match=words) as caught:
        load_dictionary(directory)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("case", "config", "words"),
    [
        ("saelens/topk", lambda c: c | {"metadata": {"sae_lens_version": "7.0.1"}}, "by SAELens 7.0.1, .* reads 6"),
        ("saelens/topk", lambda c: c | {"architecture": "matching_pursuit"}, "'matching_pursuit'; of SAELens's, this"),
        ("saelens/topk", lambda c: c | {"normalize_activations": "layer_norm"}, "activations='layer_norm', by numbers"),
        ("saelens/topk", lambda c: c | {"d_sae": 25}, r"W_enc has shape \[8, 24\], not \[8, 25\]"),
        ("saelens/topk", lambda c: c | {"d_sae": "24"}, "config that describes no dictionary"),
        ("saelens/topk", lambda c: c | {"k": 99}, r"no dictionary: k must lie in 1..24 \(n_features\), got 99"),
        ("saelens/topk", lambda c: c | {"metadata": 3}, "do not describe a dictionary"),
        ("saelens/topk", lambda c: {"architecture": "topk"}, r"dictionary \(KeyError\('d_in'\)\)"),
        ("saelens/topk", lambda c: [c], "cfg.json' is missing, truncated, corrupt"),
        ("saelens/transcoder", lambda c: c | {"d_out": 8}, "has shape"),
        ("sparsify/topk", lambda c: c | {"activation": "groupmax"}, "activation 'groupmax'; of sparsify's, this"),
        ("sparsify/topk", lambda c: c | {"signed": True}, "activation 'signed'; of sparsify's, this"),
        ("dictionary_learning/topk", lambda c: {"trainer": {"dict_class": "CrossCoder"}}, "'CrossCoder'; of dict"),
    ],
)
def test_configs_that_mean_something_else_are_refused(tmp_path, as_user, case, config, words):
    directory = spoilt(tmp_path, case, config=config)
    with pytest.raises(ValueError, match=words) as caught:
        load_dictionary(directory)
    assert "\n" not in str(caught.value)


def test_a_transcoder_that_says_nowhere_what_it_reads_is_no_autoencoder(tmp_path):
    directory = FIXTURES / "sparsify" / "transcoder" / "layers.1.mlp"
    shutil.copytree(directory, tmp_path / "renamed")
    with pytest.raises(ValueError, match="rebuilds another site than it reads, and neither is named"):
        load_dictionary(tmp_path / "renamed")


class Harmful:
    """A pickle that would do something as it is read."""

    def __reduce__(self):
        return (os.mkdir, ("harm",))


@pytest.mark.parametrize("state", [Harmful(), {"b_dec": Harmful()}, [1, 2], {"b_dec": 3}])
def test_a_pickle_is_not_run(tmp_path, monkeypatch, state):
    monkeypatch.chdir(tmp_path)
    directory = spoilt(tmp_path, "dictionary_learning/topk")
    torch.save(state, directory / "ae.pt")
    with pytest.raises(ValueError, match="or holds more than numbers, which is not run") as caught:
        load_dictionary(directory)
    assert "weights_only=False" not in str(caught.value)
    assert not (tmp_path / "harm").exists()


def test_spoilt_archives_of_gemma_scope_are_named(tmp_path):
    params = scope(tmp_path)
    path = tmp_path / "params.npz"
    for spoil in (lambda b: b[:-90], lambda b: b[:50], lambda b: b""):
        path.write_bytes(spoil(path.read_bytes()))
        with pytest.raises(ValueError, match=r"params.npz' is missing, truncated, corrupt, .*; copy or download it"):
            load_dictionary(tmp_path)
    archive(path, {key: tensor for key, tensor in params.items() if key != "threshold"})
    with pytest.raises(ValueError, match=r"threshold is missing"):
        load_dictionary(tmp_path)
    archive(path, params | {"what": np.array([Harmful()], dtype=object)})
    with pytest.raises(ValueError, match=r"params.npz' .* holds more than numbers, which is not run \(ValueError\)"):
        load_dictionary(tmp_path)
    path.unlink()
    scope(tmp_path, kind="safetensors", hf_hook_point_in="model.layers.1.output")
    (tmp_path / "config.json").write_text('{"architecture": "batch_topk"}')
    with pytest.raises(ValueError, match="'batch_topk'; of Gemma Scope's, this workbench reads 'jump_relu'"):
        load_dictionary(tmp_path)


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_is_overwritten_and_nothing_half_written(tmp_path, monkeypatch, form):
    export(TopK(8, 24, k=3), tmp_path / "there", form)
    before = {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()}
    with pytest.raises(ValueError, match=r"there' already holds something, which is left as it is; give a new"):
        export(TopK(8, 24, k=4), tmp_path / "there", form)
    assert {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()} == before

    def full(path, text):
        assert (path.parent / WEIGHTS[form]).exists()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match=r"new' could not be written \(No space left on device\); nothing was there"):
            export(TopK(8, 24, k=4), tmp_path / "new", form)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    export(TopK(8, 24, k=4), tmp_path / "new", form)
    assert load_dictionary(tmp_path / "new").options == {"k": 4}
    (tmp_path / "plain").touch()
    assert {path.stat().st_mode for path in (tmp_path / "new").iterdir()} == {(tmp_path / "plain").stat().st_mode}


def test_an_unknown_format_is_named(as_user, tmp_path):
    with pytest.raises(ValueError, match="format must be one of saelens, sparsify, dictionary_learning, got 'onnx'"):
        export(TopK(8, 24, k=3), tmp_path, "onnx")  # pyright: ignore[reportArgumentType]


def test_early_files_of_saelens_are_read(tmp_path):
    theirs = load_dictionary(FIXTURES / "saelens" / "topk")
    plain = {"hook_point": "blocks.1.hook_resid_post", "d_in": 8, "d_sae": 24, "normalize_activations": False}
    early = plain | {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}, "sae_lens_version": "3.20.1"}
    ones = lambda t: t | {"scaling_factor": torch.ones(24)}  # noqa: E731
    directory = spoilt(tmp_path, "saelens/topk", tensors=ones, config=lambda c: early)
    loaded, x = load_dictionary(directory), gaussian(20, 8, seed=SEED)
    assert torch.equal(loaded(x), theirs(x))
    assert loaded.sites_in == (Site(1),)
    export(loaded, tmp_path / "now", "saelens")
    assert same(arrays_of(tmp_path / "now"), arrays_of(FIXTURES / "saelens" / "topk"))
    relu = spoilt(tmp_path / "relu", "saelens/topk", config=lambda c: plain)
    assert isinstance(load_dictionary(relu), ReLU)
