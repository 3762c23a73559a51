"""Load any model that TransformerLens wraps, quietly, and identify it by its content."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch

from workbench.models.sites import TransformerBridge

PRETRAINED = Path(__file__).parent.parent / "pretrained"


def load_model(
    name_or_path_or_bridge: str | Path | TransformerBridge = "tiny",
    *,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
) -> TransformerBridge:
    """Return a model in evaluation mode whose parameters take no gradient."""
    from transformer_lens.model_bridge import TransformerBridge as Bridge

    target = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    source = name_or_path_or_bridge
    if isinstance(source, Bridge):
        model = source
    else:
        path = PRETRAINED / source if (PRETRAINED / source / "config.json").is_file() else source
        with _quiet():
            model = Bridge.boot_transformers(str(path), device=target, dtype=dtype or torch.float32)
    model.eval()
    model.requires_grad_(False)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def fingerprint(model: TransformerBridge) -> str:
    """Return a short hash of the weights, the configuration and the tokenizer of ``model``."""
    whole = hashlib.sha256()
    for digest in sorted({_digest(parameter) for parameter in model.parameters()}):
        whole.update(digest)
    return whole.hexdigest()[:16]


def _digest(tensor: torch.Tensor) -> bytes:
    data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.sha256(str((tuple(tensor.shape), tensor.dtype)).encode() + data.tobytes()).digest()
