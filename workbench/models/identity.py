"""Identify a model by its content, so that files made from it know whether they belong to it."""

import hashlib
import json
from typing import Any

import torch

from workbench.models.sites import TransformerBridge

# What a configuration says about files, versions and bookkeeping rather than about the function computed.
_INCIDENTAL = (
    "_name_or_path",
    "architectures",
    "attn_implementation",
    "_attn_implementation",
    "dtype",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "transformers_version",
    "use_cache",
)


def fingerprint(model: TransformerBridge) -> str:
    """Return a short hash of the weights, the configuration and the tokenizer of ``model``.

    Weights count as a set of tensors, by content alone, so that neither names nor order nor where they came from
    matter; their precision does, since activations depend on it.
    """
    whole = hashlib.sha256()
    for digest in sorted({_digest(parameter) for parameter in model.parameters()}):
        whole.update(digest)
    vocabulary = sorted(model.tokenizer.get_vocab().items()) if model.tokenizer is not None else []
    for part in (_config(model), vocabulary):
        whole.update(json.dumps(part, sort_keys=True, default=str).encode())
    return whole.hexdigest()[:16]


def _digest(tensor: torch.Tensor) -> bytes:
    data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    digest = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    digest.update(memoryview(data))  # pyright: ignore[reportArgumentType]
    return digest.digest()


def _config(model: TransformerBridge) -> dict[str, Any]:
    config: Any = getattr(model.original_model, "config", None)
    if not hasattr(config, "to_diff_dict"):  # a bridge's native models have no Hugging Face configuration
        names = ("n_layers", "d_model", "n_heads", "n_ctx", "act_fn", "eps", "normalization_type", "rotary_base")
        return {name: getattr(model.cfg, name, None) for name in names}
    return {name: value for name, value in config.to_diff_dict().items() if name not in _INCIDENTAL}
