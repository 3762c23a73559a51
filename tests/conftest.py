"""What every test shares: one thread, handlers that raise instead of showing their error, and small models.

The models are random but ordinary: Hugging Face directories of every shape that the workbench promises, written
here and read through the same door as anybody's.
"""

import os

os.environ["WORKBENCH_STRICT"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Also of the kernels that run notebooks: where cores are shared, a second thread waits more than it works.
os.environ["OMP_NUM_THREADS"] = "1"

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest
import torch

torch.set_num_threads(1)
# Started in the background of a shell, Python would ignore the interrupts that tests send themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def as_user():
    """Switch shape checking off, as it is outside tests, so that wrong input reaches our own sentences."""
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


ARCHITECTURES = ["gpt2", "neox", "neox_parallel", "llama", "gemma2"]
WORDS = "a the cat dog bird fish sun moon tree river runs sleeps sings sees likes red old small big warm".split()
N_LAYERS, N_CTX, D_MODEL, N_HEADS = 3, 48, 32, 4
BOS, EOS = 1, 2


def write_model(directory: Path, architecture: str, *, unknown: bool = False, dtype=torch.float32) -> Path:
    """Write a random model of ``architecture`` and its word-level tokenizer as a Hugging Face directory."""
    import transformers
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    special = ["<pad>", "<bos>", "<eos>", *(["<unk>"] if unknown else [])]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    backend = Tokenizer(WordLevel(vocabulary, **({"unk_token": "<unk>"} if unknown else {})))
    backend.pre_tokenizer = WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        **({"unk_token": "<unk>"} if unknown else {}),
    )

    shared = {"vocab_size": len(vocabulary), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    modern = {
        **shared,
        "hidden_size": D_MODEL,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": N_HEADS,
        "intermediate_size": 48,
        "max_position_embeddings": N_CTX,
    }
    config = {
        "gpt2": lambda: transformers.GPT2Config(
            **shared, n_embd=D_MODEL, n_layer=N_LAYERS, n_head=N_HEADS, n_positions=N_CTX
        ),
        "neox": lambda: transformers.GPTNeoXConfig(**modern, use_parallel_residual=False),
        "neox_parallel": lambda: transformers.GPTNeoXConfig(**modern, use_parallel_residual=True),
        "llama": lambda: transformers.LlamaConfig(**modern, num_key_value_heads=2),
        # The window is shorter than the texts of the tests, so that every other layer attends locally.
        "gemma2": lambda: transformers.Gemma2Config(
            **modern, num_key_value_heads=2, head_dim=8, sliding_window=8, query_pre_attn_scalar=8
        ),
        # Blocks that answer in tuples, and a pattern that can only be read; not among ARCHITECTURES.
        "gptj": lambda: transformers.GPTJConfig(
            **shared, n_embd=D_MODEL, n_layer=N_LAYERS, n_head=N_HEADS, n_positions=N_CTX, rotary_dim=4
        ),
    }[architecture]()
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # biases and scales too, so that each one matters
    model.to(dtype).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def model_directories(tmp_path_factory) -> dict[str, Path]:
    """One directory per architecture."""
    root = tmp_path_factory.mktemp("models")
    return {name: write_model(root / name, name) for name in ARCHITECTURES}


@pytest.fixture(scope="session")
def loaded(model_directories):
    """The models, loaded once."""
    from workbench.models import load_model

    return {name: load_model(path, device="cpu") for name, path in model_directories.items()}


def hooks_on(model) -> list[str]:
    """Everything that anybody has hung on ``model``, which a test compares with nothing."""
    found = [name for name, point in model.hook_dict.items() if point.fwd_hooks or point._forward_hooks]
    found += [name for name, module in model.named_modules() if "forward" in module.__dict__]
    return found + ["input"] * len(model.original_model._forward_pre_hooks)


@contextmanager
def layers_run(model) -> Iterator[list[int]]:
    """List the layers whose MLP runs while the block is open."""
    ran: list[int] = []
    handles = [
        block.mlp.register_forward_hook(lambda module, args, output, layer=layer: ran.append(layer))
        for layer, block in enumerate(model.blocks)
    ]
    yield ran
    for handle in handles:
        handle.remove()


@pytest.fixture(params=ARCHITECTURES)
def model(request, loaded):
    """Each architecture in turn; whatever a test does, it must leave no hook behind."""
    yield loaded[request.param]
    assert hooks_on(loaded[request.param]) == []


@pytest.fixture
def tiny_model(loaded):
    """One random model (GPT-NeoX, sequential residual, as the shipped one is)."""
    yield loaded["neox"]
    assert hooks_on(loaded["neox"]) == []


def tokens_of(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    """Random words, each row with its beginning of text."""
    tokens = torch.randint(3, len(WORDS) + 3, (rows, length), generator=torch.Generator().manual_seed(seed))
    tokens[:, 0] = BOS
    return tokens


def streams_of(model) -> list[str]:
    """What the blocks of a model have: all streams, but between attention and MLP only where these take turns."""
    from workbench.models import Stream

    return [name for name in get_args(Stream) if not (model.cfg.parallel_attn_mlp and name == "resid_mid")]


def corpus(count: int, seed: int = 0):
    """Documents of random words, labelled by what can be checked: the word's parity and the place in the document."""
    from workbench.language import Column, Documents

    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 20, (count,), generator=generator)
    tokens = torch.randint(3, len(WORDS) + 3, (count, int(lengths.max())), generator=generator)
    place = torch.arange(tokens.shape[1])
    tokens[:, 0] = BOS
    tokens[torch.arange(count), lengths - 1] = EOS
    tokens[place >= lengths[:, None]] = 0
    parity = Column(1 + tokens % 2, ("", "even", "odd"))
    half = Column(torch.where(place < lengths[:, None] // 2, 1, 2), ("", "first", "second"))
    return Documents(tokens, lengths, {"parity": parity, "half": half})


def made_features(n: int = 24, words=(), seed: int = 0):
    """Features of random numbers, of which 0 is dead and 1 dense; ``words`` are the text of the first tokens."""
    from workbench.features import FeatureSet
    from workbench.features.describe import PLACES, SAMPLED, TOP
    from workbench.features.feature import AFTER, BEFORE

    generator = torch.Generator().manual_seed(seed)
    words = [*words, *(f" word{i}" for i in range(40))]

    def share(*shape):
        return torch.rand(n, *shape, generator=generator)

    def number(high, *shape):
        return torch.randint(high, (n, *shape), generator=generator)

    rows, kept, window = 100_000, TOP + SAMPLED, BEFORE + 1 + AFTER
    count = (10 ** (1 + 3 * share())).long()
    count[0], count[1] = 0, 30_000
    acts = share(kept, window) * (share(kept, window) < 0.2)
    acts[:, :, BEFORE] = share(kept).clamp_min(0.01)
    acts[:, 0, BEFORE] = 1.0
    acts[:, :TOP, BEFORE] = acts[:, :TOP, BEFORE].sort(1, descending=True).values
    histogram = share(40) ** 4
    places = (count[:, None] * torch.tensor([0.1, 0.2, 0.3, 0.4])).long()
    columns = {
        "count": count,
        "mean": 0.3 + 0 * share(),
        "max": torch.where(count > 0, 1.0, 0.0),
        "quantiles": share(21).sort(1).values,
        "histogram": histogram / histogram.sum(1, keepdim=True),
        "tokens": number(len(words), 10),
        "token_counts": 1 + number(9, 10).sort(1, descending=True).values,
        "token_rows": 10 + number(90, 10),
        "places": torch.nn.functional.pad(places, (0, PLACES - 4)),
        "near": number(n, 8),
        "near_cosines": 1 - share(8),
        "with": number(n, 8),
        "phi": 1 - share(8),
        "like": number(n, 8),
        "pearson": 1 - share(8),
        "label": 1 + number(2, 1),
        "examples": torch.where(count > 0, TOP, 0),
        "samples": torch.where(count > 0, SAMPLED, 0),
        "value": acts[:, :, BEFORE].clone(),
        "example_tokens": number(len(words), kept, window),
        "example_acts": acts.half(),
        "example_doc": number(50, kept),
        "example_pos": number(50, kept),
        "raised": number(len(words), 10),
        "raised_by": share(10).sort(1, descending=True).values,
        "lowered": number(len(words), 10),
        "lowered_by": -share(10).sort(1, descending=True).values,
        "loss_effect": 0.1 * share(),
        **{f"label_{name}": share() for name in ("precision", "recall", "f1", "mcc")},
    }
    names = {"topic": ("", "sea", words[0])}
    spans = [100, 200, 400, 800] + [0] * (PLACES - 4)
    return FeatureSet(
        columns,
        rows=rows,
        places=[1000 * span for span in spans],
        labels=names,
        words=list(words),
        provenance={"model": "made", "sites_in": ["1.resid_post"], "sites_out": ["1.resid_post"], "tops": TOP},
    )
