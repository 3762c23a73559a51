"""The one door to models: what it gives, what it says when it cannot, and that it stays offline and quiet."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import N_CTX, WORDS, write_model
from safetensors.torch import load_file, save_file
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge

from workbench.models import Site, fingerprint, generate, load_model, loading, record, tokenize


@pytest.fixture
def copied(model_directories, tmp_path):
    """A directory to break."""
    return shutil.copytree(model_directories["neox"], tmp_path / "model")


def native_bridge() -> TransformerBridge:
    config = TransformerBridgeConfig(
        d_model=16, d_head=8, n_layers=2, n_ctx=20, n_heads=2, d_vocab=11, d_mlp=32, act_fn="gelu", seed=0
    )
    return TransformerBridge.boot_native(config)


def test_a_loaded_model_is_ready(model):
    assert not model.training
    assert not model.original_model.training
    assert all(not parameter.requires_grad for parameter in model.parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_half_precision_is_loaded_as_float32_unless_asked(tmp_path):
    path = write_model(tmp_path / "half", "neox", dtype=torch.float16)
    assert load_file(path / "model.safetensors")["embed_out.weight"].dtype == torch.float16
    assert next(load_model(path).parameters()).dtype == torch.float32
    model = load_model(str(path), device="cpu", dtype=torch.bfloat16)
    assert next(model.parameters()).dtype == torch.bfloat16
    assert record(model, torch.tensor([[1, 5]]), [Site(0)])[Site(0)].dtype == torch.bfloat16


def test_a_checkpoint_is_read_without_the_dictionaries_beside_it(copied):
    weights = copied / "model.safetensors"
    (copied / "checkpoints").mkdir()
    save_file(
        {key: 2 * tensor for key, tensor in load_file(weights).items()}, copied / "checkpoints" / "000030.safetensors"
    )
    (copied / "dictionaries").mkdir()
    (copied / "dictionaries" / "nothing").symlink_to(copied / "nowhere")  # which nobody could copy
    assert torch.equal(load_model(f"{copied}@30").W_E, 2 * load_model(copied).W_E)


def test_a_bridge_goes_through_the_same_door():
    bridge = native_bridge()
    bridge.train()
    model = load_model(bridge)
    assert model is bridge
    assert not model.training
    assert all(not parameter.requires_grad for parameter in model.parameters())
    assert next(load_model(bridge, dtype=torch.float64).parameters()).dtype == torch.float64


def test_a_native_bridge_reads_and_writes_like_any_other():
    model, tokens = load_model(native_bridge()), torch.tensor([[1, 5, 3]])
    acts = record(model, tokens, [Site(1, stream) for stream in ("resid_pre", "attn_out", "mlp_out", "resid_post")])
    parts = [acts[Site(1, stream)] for stream in ("resid_pre", "attn_out", "mlp_out")]
    torch.testing.assert_close(sum(parts), acts[Site(1)])
    assert len(list(generate(model, tokens, max_new_tokens=5))) == 5
    with pytest.raises(ValueError, match="has no tokenizer: pass tensors of token ids"):
        tokenize(model, "the cat")


def test_a_shipped_name_is_a_directory_of_the_package(copied, monkeypatch):
    monkeypatch.setattr(loading, "PRETRAINED", copied.parent)
    assert load_model("model").cfg.n_layers == 3
    with pytest.raises(ValueError, match=r"'modle' is neither .* nearest on this machine is 'model', all are model"):
        load_model("modle")


QUIET = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError(f"network: {args}")
socket.socket.connect = socket.getaddrinfo = refuse
from workbench.models import *
model = load_model(sys.argv[1])
tokens = tokenize(model, "the cat sees")
record(model, tokens, [Site(1)])
list(generate(model, tokens, edits={Site(1): lambda acts, context: acts}))
"""


def test_a_directory_needs_no_network_and_makes_no_noise(model_directories):
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-c", QUIET, str(model_directories["neox"])], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_downloaded_hub_model_loads_offline(copied, tmp_path, monkeypatch):
    cache = tmp_path / "hub"
    snapshot = cache / "models--someone--small" / "snapshots" / ("0" * 40)
    shutil.copytree(copied, snapshot)
    (cache / "models--someone--small" / "refs").mkdir()
    (cache / "models--someone--small" / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    assert load_model("someone/small").cfg.n_layers == 3


@pytest.fixture
def hub(monkeypatch):
    """A hub that can be reached and knows one model, and the names that are booted from it."""
    from huggingface_hub.errors import RepositoryNotFoundError

    class Unknown(RepositoryNotFoundError):
        def __init__(self):  # the response that it asks for is of another library with every major version
            Exception.__init__(self, "404 Client Error")

    def answer(name, timeout):
        if name != "someone/small":
            raise Unknown

    booted = []
    monkeypatch.setattr("huggingface_hub.model_info", answer)
    monkeypatch.setattr(
        TransformerBridge, "boot_transformers", lambda name, **_: booted.append(name) or native_bridge()
    )
    return booted


def test_a_model_of_the_hub_is_fetched_from_it(hub):
    assert load_model("someone/small", device="cpu").cfg.n_layers == 2
    assert hub == ["someone/small"]


def test_a_name_that_the_hub_does_not_know_is_met_by_a_sentence(hub):
    with pytest.raises(
        ValueError, match=r"nor a model on the Hugging Face hub\. The nearest on this machine is 'tiny'"
    ):
        load_model("tinny")
    assert hub == []


# What cannot be loaded.


def truncate(path):
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def drop_a_tensor(path):
    weights = load_file(path / "model.safetensors")
    del weights["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"]
    save_file(weights, path / "model.safetensors", {"format": "pt"})


def poison(value):
    def damage(path):
        weights = load_file(path / "model.safetensors")
        for name in ("gpt_neox.layers.1.mlp.dense_h_to_4h.bias", "gpt_neox.layers.2.mlp.dense_h_to_4h.bias"):
            weights[name][3] = value
        save_file(weights, path / "model.safetensors", {"format": "pt"})

    return damage


def configure(**changed):
    def damage(path):
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | changed))

    return damage


def name_a_missing_shard(path):
    index = {"metadata": {}, "weight_map": {"embed_out.weight": "model-00002-of-00002.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: (path / "config.json").unlink(), r"has no config\.json, so it is not a model directory"),
        (lambda path: (path / "config.json").write_text("{"), "could not be loaded as a language model: .*valid JSON"),
        (lambda path: (path / "config.json").write_text('{"model_type": "resnet"}'), "could not be loaded"),
        (lambda path: (path / "tokenizer.json").unlink(), r"has no tokenizer; put its tokenizer\.json"),
        (lambda path: (path / "model.safetensors").unlink(), r"has no weights; put its model\.safetensors"),
        (lambda path: (path / "model.safetensors").write_bytes(b"x" * 500), "corrupt or truncated .*download it again"),
        (truncate, r"model\.safetensors' is missing, corrupt or truncated .*download it again"),
        (name_a_missing_shard, r"model-00002-of-00002\.safetensors' is missing, corrupt"),
        (lambda path: (path / "tokenizer.json").write_text("{}"), r"tokenizer\.json' is not a tokenizer .*again"),
        (drop_a_tensor, r"incomplete: gpt_neox\.layers\.1\.mlp\.dense_h_to_4h\.weight is missing"),
        (poison(float("nan")), r"hold NaN or infinities: gpt_neox\.layers\.1\.mlp\.\S+\.bias is the first of 2 such"),
        (poison(float("-inf")), r"hold NaN or infinities: gpt_neox\.layers\.1\.mlp\.\S+\.bias is the first of 2 such"),
        (
            configure(intermediate_size=40),
            r"config\.json of .* gpt_neox\.layers\.0\.mlp\.dense_4h_to_h\.weight is 32 × 40 by config\.json and "
            r"32 × 48 in the file\. Put the config\.json of these weights beside them",
        ),
        (configure(num_hidden_layers=2), r"by config\.json there is no gpt_neox\.layers\.2\.\S+, which the file has"),
        (configure(num_hidden_layers=4), r"incomplete: gpt_neox\.layers\.3\.\S+ is missing"),
        (configure(num_attention_heads=5), "hidden size is not divisible by the number of attention heads"),
    ],
)
def test_a_damaged_directory_is_met_by_a_sentence(copied, damage, words):
    damage(copied)
    with pytest.raises(ValueError, match=words):
        load_model(copied)


def test_what_another_head_left_in_the_file_does_no_harm(copied):
    weights = load_file(copied / "model.safetensors")
    save_file(weights | {"score.weight": torch.zeros(2, 32)}, copied / "model.safetensors", {"format": "pt"})
    assert load_model(copied).cfg.n_layers == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("someone/unheard-of", r"hub cannot be reached .* run 'hf download someone/unheard-of' once"),
        ("no/such/thing", "is neither a shipped model, nor a directory, nor a model on the Hugging Face hub"),
        ("./nowhere", r"'\./nowhere' is not a directory"),
        ("", "The name of the model is empty; give a shipped one, such as 'tiny', a directory or a hub id"),
    ],
)
def test_an_unknown_name_is_met_by_a_sentence(name, words):
    with pytest.raises(ValueError, match=words):
        load_model(name)


def test_anything_else_is_met_by_a_sentence(as_user, loaded):
    with pytest.raises(TypeError, match=r"got GPTNeoXForCausalLM; wrap a Hugging Face model with TransformerBridge"):
        load_model(loaded["neox"].original_model)


# Identity.


def test_a_fingerprint_follows_the_content_alone(copied, loaded):
    same = fingerprint(loaded["neox"])
    assert same == fingerprint(load_model(copied))
    assert len({fingerprint(model) for model in loaded.values()}) == len(loaded)
    assert fingerprint(load_model(copied, dtype=torch.bfloat16)) != same

    model = load_model(copied)
    next(model.parameters()).data[0, 0] += 1e-3
    assert fingerprint(model) != same

    config = json.loads((copied / "config.json").read_text())
    config["layer_norm_eps"] = 1e-3
    (copied / "config.json").write_text(json.dumps(config))
    assert fingerprint(load_model(copied)) != same


def test_a_fingerprint_knows_the_tokenizer(copied, loaded):
    tokenizer = json.loads((copied / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words["cat"], words["dog"] = words["dog"], words["cat"]
    (copied / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert fingerprint(load_model(copied)) != fingerprint(loaded["neox"])


# Text.


def test_text_becomes_tokens_with_the_beginning_first(model):
    ids = [1, *(WORDS.index(word) + 3 for word in ("the", "cat", "sleeps"))]
    assert tokenize(model, "the cat sleeps").tolist() == [ids]
    assert tokenize(model, "<bos> the cat sleeps").tolist() == [ids]
    assert tokenize(model, ["the cat sleeps", "the"]).tolist() == [ids, [1, WORDS.index("the") + 3, 0, 0]]
    assert tokenize(model, "").tolist() == [[1]]


@pytest.mark.parametrize("unknown", [False, True])
def test_a_word_out_of_vocabulary_is_named(tmp_path, unknown):
    model = load_model(write_model(tmp_path / "model", "neox", unknown=unknown))
    words = r"'cats' \(word 2 of the text\) is not in the vocabulary .*\(20 words\); the nearest words are 'cat'"
    with pytest.raises(ValueError, match=words):
        tokenize(model, ["the cat", "the cats sleeps"])


def test_text_past_the_context_is_met_by_a_sentence(tiny_model):
    with pytest.raises(ValueError, match=f"has 61 tokens, but this model reads at most {N_CTX}; leave out at least 13"):
        tokenize(tiny_model, "cat " * 60)
    with pytest.raises(ValueError, match=r"Text 1 of 2 \(counted from 0\) has 61 tokens"):
        tokenize(tiny_model, ["the cat", "cat " * 60])
    with pytest.raises(ValueError, match="at least one text"):
        tokenize(tiny_model, [])
