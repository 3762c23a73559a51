"""From weights, as plain tensors, to a model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.models.loading import load_model
from workbench.models.sites import TransformerBridge

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Name → axes, and where the bridge keeps it. Attention and MLP stand once in every layer.
_WEIGHTS = {
    "W_E": ("d_vocab d_model", "embed.weight"),
    "W_pos": ("n_ctx d_model", "pos_embed.weight"),
    **{f"W_{x}": ("n_layers n_heads d_model d_head", f"attn.{x.lower()}.weight") for x in "QKV"},
    "W_O": ("n_layers n_heads d_head d_model", "attn.o.weight"),
    "W_U": ("d_model d_vocab", "unembed.weight"),
    **{f"b_{x}": ("n_layers n_heads d_head", f"attn.{x.lower()}.bias") for x in "QKV"},
    "W_in": ("n_layers d_model d_mlp", "mlp.in.weight"),
    "W_out": ("n_layers d_mlp d_model", "mlp.out.weight"),
    "b_in": ("n_layers d_mlp", "mlp.in.bias"),
}


def from_weights(weights: Mapping[str, Float[Tensor, "..."]], vocabulary: Sequence[str]) -> TransformerBridge:
    """Return a transformer without norms that has exactly these weights, which the bridge gives back (``model.W_Q``).

    They have TransformerLens's names and axes: ``W_E``, ``W_pos``, ``W_Q``, ``W_K``, ``W_V``, ``W_O`` and ``W_U``,
    stacked by layer and head; with ``W_in`` and ``W_out`` every block has an MLP with ReLU. The biases ``b_Q``,
    ``b_K``, ``b_V`` and ``b_in`` are zero unless given, and there are no others. Of the vocabulary, one word for each
    token, the first begins every text.
    """
    from transformer_lens.model_bridge.sources.native import boot

    sizes = _sizes(weights, vocabulary)
    config = {**sizes, "act_fn": "relu", "attn_only": "W_in" not in weights, "normalization_type": None}
    model = boot(config, model_name="hand-wired")
    model.tokenizer = _tokenizer(vocabulary)  # not while booting, where TransformerLens encodes words of its own
    state = {key: torch.zeros_like(tensor) for key, tensor in model.state_dict().items()}
    for name, tensor in weights.items():
        axes, key = _WEIGHTS[name]
        if "n_layers" in axes:
            state |= {f"blocks.{layer}.{key}": _as_linear(name, part) for layer, part in enumerate(tensor)}
        else:
            state[key] = _as_linear(name, tensor)
    model.load_state_dict(state)
    return load_model(model, device=weights["W_E"].device, dtype=weights["W_E"].dtype)


def _as_linear(name: str, part: Tensor) -> Tensor:
    """Return a weight as ``nn.Linear`` and ``nn.Embedding`` hold it: [out, in], heads side by side."""
    if name in ("W_Q", "W_K", "W_V"):
        return part.transpose(1, 2).flatten(0, 1)
    if name == "W_O":
        return part.flatten(0, 1).T
    return part.T if name in ("W_U", "W_in", "W_out") else part.flatten() if name[0] == "b" else part


def _sizes(weights: Mapping[str, Tensor], vocabulary: Sequence[str]) -> dict[str, int]:
    """Return the sizes of the model that has ``weights``, or say what does not fit."""
    mlp = {"W_in", "W_out"} if {"W_in", "W_out", "b_in"} & {*weights} else set()
    needed = {"W_E", "W_pos", "W_Q", "W_K", "W_V", "W_O", "W_U"} | mlp
    if wrong := sorted((needed - {*weights}) | ({*weights} - {*_WEIGHTS})):
        raise ValueError(f"weights must hold {', '.join(sorted(needed))}; missing or unknown: {', '.join(wrong)}.")
    if twice := {word for word in vocabulary if list(vocabulary).count(word) > 1}:
        raise ValueError(f"The words of a vocabulary must differ, got {', '.join(sorted(twice))} more than once.")
    sizes = {"d_vocab": len(vocabulary)}
    for name in (name for name in _WEIGHTS if name in weights):
        axes, shape = _WEIGHTS[name][0].split(), tuple(weights[name].shape)
        if len(axes) != len(shape) or any(sizes.setdefault(*axis) != axis[1] for axis in zip(axes, shape, strict=True)):
            raise ValueError(f"{name} must be [{', '.join(axes)}] with {sizes}, got {shape}.")
    return sizes


def _tokenizer(vocabulary: Sequence[str]) -> "PreTrainedTokenizerFast":
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    bos = vocabulary[0]
    words = Tokenizer(models.WordLevel({word: token for token, word in enumerate(vocabulary)}))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    words.post_processor = processors.TemplateProcessing(single=f"{bos} $A", pair=None, special_tokens=[(bos, 0)])  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token=bos, eos_token=bos, pad_token=bos)
