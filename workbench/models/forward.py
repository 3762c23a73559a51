"""One forward of a model: what is checked before, and what is held during."""

import threading
import weakref
from typing import Any

import torch
from torch import Tensor

from workbench.models.sites import TransformerBridge

_locks: weakref.WeakKeyDictionary[TransformerBridge, Any] = weakref.WeakKeyDictionary()
_locks_guard = threading.Lock()


def lock(model: TransformerBridge) -> Any:
    """Return the lock of ``model``: a bridge keeps state of the current call on its modules."""
    with _locks_guard:
        return _locks.setdefault(model, threading.RLock())


def run(model: TransformerBridge, tokens: Tensor, mask: Tensor | None = None, **kwargs: Any) -> Any:
    """Run one forward, one thread at a time; a mask without padding is left out, as it changes nothing."""
    if mask is not None and not bool(mask.all()):
        kwargs["attention_mask"] = mask.to(tokens.device, torch.long)
    with lock(model):
        return model(tokens, **kwargs)


def device_of(model: TransformerBridge) -> torch.device:
    """Return the device on which ``model`` takes tokens."""
    return next(model.parameters()).device


def checked_tokens(model: TransformerBridge, tokens: Tensor) -> Tensor:
    """Return ``tokens`` on the model's device, or say what is wrong with them."""
    if not isinstance(tokens, Tensor):
        raise TypeError(
            f"tokens must be a [batch, pos] tensor of token ids, got {type(tokens).__name__}; "
            "of text, give tokenize(model, text)."
        )
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise TypeError(f"Token ids are integers, got {tokens.dtype}; if whole numbers are in it, give tokens.long().")
    if tokens.ndim != 2 or tokens.numel() == 0:
        raise ValueError(
            f"tokens must be a non-empty [batch, pos] tensor, got shape {tuple(tokens.shape)}; "
            "one text is a batch of one, tokens[None]."
        )
    low, high = (int(bound) for bound in tokens.aminmax())
    if low < 0 or high >= model.cfg.d_vocab:
        raise ValueError(
            f"tokens must lie in 0..{model.cfg.d_vocab - 1}, the vocabulary of this model, "
            f"got {low if low < 0 else high}."
        )
    if tokens.shape[1] > model.cfg.n_ctx:
        raise ValueError(
            f"The text has {tokens.shape[1]} tokens, but this model reads at most {model.cfg.n_ctx}; "
            "shorten or split it."
        )
    return tokens.to(device_of(model), torch.long)
