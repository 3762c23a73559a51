"""A dictionary that is right is called right; one that is put to use wrongly, in one way after another, is told how."""

import json
import logging
import math
import random
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from conftest import D_MODEL, tokens_of
from test_formats import FIXTURES
from torch import Tensor

from workbench.activations import ActivationStore
from workbench.dictionaries import (
    PCA,
    Crosscoder,
    Dictionary,
    JumpReLU,
    TopK,
    export,
    fidelity,
    load_dictionary,
    splice_kl,
)
from workbench.evaluation import Alternative, Audit, audit
from workbench.evaluation.audit import CLEARLY
from workbench.language import Documents, Language
from workbench.models import Site, TransformerBridge, edited, load_model, record
from workbench.training import TrainConfig, train

SEED = random.randrange(2**20)
SHIPPED = ("tiny/2.resid_post", "tiny/3.attn_out", "tiny/1.mlp_out", "tiny/4.transcoder")
HERE = Site(2)


@pytest.fixture(autouse=True)
def _told():
    logging.warning("SEED = %s", SEED)  # shown with a test that fails


@cache
def tiny() -> TransformerBridge:
    return load_model("tiny", device="cpu")


@cache
def text() -> Documents:
    return Language(0).documents(40, split="test", seed=SEED)


@cache
def acts() -> Tensor:
    """Activations of other documents, without the first token."""
    documents = Language(0).documents(100, split="train", seed=SEED)
    behind = documents.mask & (torch.arange(documents.tokens.shape[1]) > 0)
    return record(tiny(), documents.tokens, [HERE])[HERE][behind]


@cache
def jumping() -> Dictionary:
    """A dictionary with thresholds, trained for seconds."""
    store = ActivationStore.collect(tiny(), Language(0).documents(400, split="train", seed=SEED), [HERE])
    dictionary = JumpReLU(128, 256, l0=12, sites_in=HERE, seed=SEED)
    list(train(dictionary, store.batches([HERE], 1024, SEED), TrainConfig(steps=200, lr=1e-2)))
    return dictionary


def of(units: Callable[[Tensor], tuple[Tensor | float, Tensor | float]]) -> Callable[[Dictionary], Dictionary]:
    """Return what makes a dictionary one of activations in other units, which it does not mention."""

    def change(dictionary: Dictionary) -> Dictionary:
        shift, scale = units(acts())
        twin = dictionary.folded()
        for side in ("in", "out"):
            getattr(twin, f"centre_{side}").copy_(-torch.as_tensor(shift) * scale)
            getattr(twin, f"scale_{side}").fill_(1 / float(scale))
        return twin.folded()

    return change


def weights(edit: Callable[[Any], object]) -> Callable[[Dictionary], Dictionary]:
    """Return what edits the weights of a copy, which acts on activations as they are."""

    def change(dictionary: Dictionary) -> Dictionary:
        twin = dictionary.folded()
        edit(twin)
        return twin

    return change


def placed(*sites: Site) -> Callable[[Dictionary], Dictionary]:
    def change(dictionary: Dictionary) -> Dictionary:
        twin = deepcopy(dictionary)
        twin.sites_in = twin.sites_out = sites
        return twin

    return change


def halved(twin: Any) -> None:
    """Codes beyond what half precision holds, with weights that it holds."""
    twin.W_enc.mul_(2**13)
    twin.b_enc.mul_(2**13)
    twin.W_dec.mul_(2**-13)
    twin.half()


def shuffled(twin: Dictionary) -> None:
    order = torch.randperm(len(twin.W_dec), generator=torch.Generator().manual_seed(SEED))
    twin.W_dec.data = twin.W_dec[order]


WRONG: dict[str, tuple[Callable[[Dictionary], Dictionary], str]] = {
    "layer": (placed(Site(4)), r"belongs at '2\.resid_post', not at '4\.resid_post'.*Site\.parse\('2\.resid_post'\)"),
    "stream": (placed(Site(2, "mlp_out")), r"belongs at '2\.resid_post', not at '2\.mlp_out'"),
    "no site": (placed(), r"names no site, and fits best at '2\.resid_post'"),
    "length 1": (of(lambda x: (0.0, 1 / x.norm(dim=1).mean())), r"inputs of mean length 1: .*multiply scale_in"),
    "length sqrt(d)": (of(lambda x: (0.0, 128**0.5 / x.norm(dim=1).mean())), r"inputs of mean length sqrt\(d\)"),
    "centring": (of(lambda x: (x.mean(0), 1.0)), r"inputs less their mean: .*add the mean activation to centre_in"),
    "both": (
        of(lambda x: (x.mean(0), (x - x.mean(0)).square().mean().rsqrt())),
        r"inputs less their mean, of mean square 1: .*multiply scale_in .* then add the mean activation",
    ),
    "bias subtracted": (
        weights(lambda twin: twin.centre_in.copy_(twin.b_dec)),
        r"inputs plus the decoder's bias: .*apply_b_dec_to_input=False",
    ),
    "bias not subtracted": (
        weights(lambda twin: twin.b_enc.add_(twin.W_enc @ twin.b_dec)),
        r"inputs less the decoder's bias: .*apply_b_dec_to_input=True",
    ),
    "bias lost": (weights(lambda twin: twin.b_dec.zero_()), r"decoder's bias is lost: .*to centre_out"),
    "rows in another order": (weights(shuffled), r"rows of W_dec are not in the order of the encoder's"),
    "reshaped": (
        weights(lambda twin: setattr(twin.W_dec, "data", twin.W_dec.T.contiguous().view(twin.W_dec.shape))),
        r"reshaped where it should have been transposed: .*W_dec\.reshape\(d, n_features\)\.T",
    ),
    "half": (weights(halved), r"In float16 its numbers overflow or are rounded away"),
}


def audited(dictionary: Dictionary, **options) -> Audit:
    return audit(dictionary, tiny(), text(), **options)


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_right_is_called_right(name):
    found = audited(load_dictionary(name))
    assert found.good, found.findings
    assert found.given == found.mended
    assert found.given.fvu < found.random.fvu
    assert not any(tried.better for tried in found.alternatives)
    assert set(found.to_frame()["change"]) >= {"", "site", "inputs", "decoder", "threshold", "dtype", "first token"}
    assert "as far as can be seen it is wired as it was trained" in repr(found).lower()


@cache
def fvu_of_the_right_one() -> float:
    return audited(load_dictionary("tiny/2.resid_post")).given.fvu


@pytest.mark.parametrize("wrong", WRONG)
@torch.no_grad()
def test_what_is_wrong_is_named_with_what_mends_it(wrong):
    change, sentence = WRONG[wrong]
    right = load_dictionary("tiny/2.resid_post")
    found = audited(change(right))
    assert not found.good
    assert len(found.findings) == 1
    assert re.search(sentence, found.findings[0]), found.findings
    assert CLEARLY * found.mended.fvu <= fvu_of_the_right_one()
    if wrong not in ("layer", "stream"):  # elsewhere in the model a loss is another loss
        assert found.losses["mended"].kl < found.losses["given"].kl or math.isnan(found.losses["given"].kl)
    assert (found.wiring.read, found.wiring.write) == (HERE, HERE)


@torch.no_grad()
def test_thresholds_that_are_lost_are_missed():
    right = jumping()
    assert audited(right).good
    wrong = deepcopy(right)
    wrong.threshold.zero_()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    found = audited(wrong)
    assert "thresholds are lost" in found.findings[0]
    assert found.mended.l0 < 0.5 * found.given.l0
    assert found.mended.fvu <= found.given.fvu


def test_first_tokens_that_are_let_in_are_named():
    found = audited(load_dictionary("tiny/2.resid_post"), keep_bos=True)
    assert re.search(r"first token of a text, .* is nothing it knows: .* keep_bos=False", found.findings[0])
    assert found.mended == replace(audited(load_dictionary("tiny/2.resid_post")).given, **told(found.mended))


def told(alternative: Alternative) -> dict[str, Any]:
    return {name: getattr(alternative, name) for name in ("change", "setting", "round", "better")}


def test_another_model_is_named_by_its_print_and_without_it():
    other, right = load_model("tiny-1", device="cpu"), load_dictionary("tiny/2.resid_post")
    found = audit(right, other, text())
    assert re.search(r"trained on another model, \w+, and this one is \w+", found.findings[0])
    right.provenance = {}
    found = audit(right, other, text())
    assert re.search(r"nothing that was tried makes it a dictionary of this model", found.findings[-1])


def test_weights_that_are_no_numbers_are_named():
    wrong = load_dictionary("tiny/2.resid_post").requires_grad_(False)
    wrong.b_enc[3] = torch.inf  # pyright: ignore[reportIndexIssue]
    assert re.search(r"^b_enc: NaN or infinity.*Load the original", audited(wrong).findings[0])


def test_a_layer_that_a_model_lacks_is_named_and_another_found():
    found = audited(placed(Site(7))(load_dictionary("tiny/2.resid_post")))
    assert "This model has no '7.resid_post'" in found.findings[0]
    assert "It belongs at '2.resid_post', not at '7.resid_post'" in found.findings[1]
    assert math.isinf(found.given.fvu)
    assert math.isnan(found.losses["given"].kl)


@torch.no_grad()
def test_two_things_that_are_wrong_are_named_both():
    halves = WRONG["bias lost"][0], WRONG["layer"][0]
    wrong = load_dictionary("tiny/2.resid_post")
    for change in halves:
        wrong = change(wrong)
    said = " ".join(audited(wrong).findings)
    assert "It belongs at '2.resid_post', not at '4.resid_post'" in said
    assert "The decoder's bias is lost" in said


def test_numbers_are_those_of_a_naive_version():
    dictionary, documents = load_dictionary("tiny/2.resid_post"), text()[:15]
    found = audit(dictionary, tiny(), documents)
    behind = documents.mask & (torch.arange(documents.tokens.shape[1]) > 0)
    x = record(tiny(), documents.tokens, [HERE])[HERE][behind]
    naive = fidelity(dictionary, x)
    assert found.tokens == len(x)
    assert (found.given.fvu, found.given.l0, found.dead) == pytest.approx((naive.fvu, naive.l0, naive.dead), rel=1e-3)
    asked = behind[:, :-1] & documents.mask[:, 1:]
    kl = splice_kl(tiny(), dictionary, documents.tokens, where=behind)[:, :-1][asked]
    assert found.losses["given"].kl == pytest.approx(float(kl.mean()), rel=0.01)
    zeroed = {HERE: lambda acts, context: torch.where(behind[..., None], 0, acts)}
    for name, edits in {"model": {}, "zero": zeroed}.items():
        with torch.no_grad(), edited(tiny(), edits):
            log_p = tiny()(documents.tokens)[:, :-1].log_softmax(-1)
        ce = -log_p.gather(2, documents.tokens[:, 1:, None])[..., 0][asked].mean()
        assert found.losses[name].ce == pytest.approx(float(ce), rel=1e-3)


@pytest.mark.parametrize("form", ["saelens", "sparsify", "dictionary_learning"])
def test_a_foreign_directory_is_right_until_its_config_says_otherwise(tmp_path, form):
    export(load_dictionary("tiny/2.resid_post"), tmp_path, form)
    assert audited(load_dictionary(tmp_path)).good
    if form == "saelens":
        config = json.loads((tmp_path / "cfg.json").read_text())
        config["metadata"]["hook_name"] = Site(3).hook
        config["metadata"].pop("workbench", None)
        (tmp_path / "cfg.json").write_text(json.dumps(config))
        assert "It belongs at '2.resid_post', not at '3.resid_post'" in audited(load_dictionary(tmp_path)).findings[0]


def test_a_dictionary_of_another_width_is_refused(tiny_model):
    directory = FIXTURES / "saelens" / "standard"
    with pytest.raises(ValueError, match=r"reads width \d+ and rebuilds width \d+, and the sites of this model have"):
        audit(load_dictionary(directory), tiny_model, tokens_of(8, 20))


def test_every_architecture_has_its_sites_tried(model):
    tokens = tokens_of(30, 30, seed=SEED)  # as many as are compared, so that all are
    x = record(model, tokens, [Site(1)])[Site(1)][:, 1:].flatten(0, 1)
    dictionary = PCA(D_MODEL, D_MODEL, k=6, sites_in=Site(1))
    dictionary.initialise(x)
    found = audit(dictionary, model, tokens)
    frame = found.to_frame()
    tried = set(frame.loc[frame["change"] == "site", "setting"])
    # The last layer's, less what has another name, or is as wide as the MLP or the norm's scale.
    assert {f"at '2.{stream}'" for stream in ("attn_out", "mlp_out", "resid_post")} <= tried
    assert found.given.fvu == pytest.approx(fidelity(dictionary, x).fvu, rel=1e-3)
    assert math.isfinite(found.losses["mended"].kl)


def test_what_cannot_be_audited_is_refused(tiny_model):
    with pytest.raises(ValueError, match="reads one site and rebuilds one"):
        audit(Crosscoder(D_MODEL, 40, k=3, sites_in=[Site(0), Site(1)]), tiny_model, tokens_of(8, 20))
    with pytest.raises(ValueError, match="The text has 19 tokens behind the first of each document; an audit takes 64"):
        audit(TopK(D_MODEL, 40, k=3, sites_in=Site(1)), tiny_model, tokens_of(1, 20))
    with pytest.raises(ValueError, match="The text is empty"):
        audit(TopK(D_MODEL, 40, k=3, sites_in=Site(1)), tiny_model, [])
