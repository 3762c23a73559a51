"""Stream tokens from a model, one forward each, edited or not."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.models.forward import checked_tokens, run
from workbench.models.hooks import Edit, edited
from workbench.models.sites import Site, TransformerBridge
from workbench.models.text import Decoder


@runtime_checkable
class Cancel(Protocol):
    """Anything like ``threading.Event``."""

    def is_set(self) -> bool:
        """Whether to stop."""
        ...


@dataclass(frozen=True)
class GeneratedToken:
    """One token that a model wrote."""

    id: int
    """Its id in the vocabulary."""

    text: str
    """What it adds to the decoded text; the pieces joined are the text."""

    position: int
    """Its absolute position; the prompt begins at 0."""

    logprob: float
    """Log probability, in nats, that the model as edited gave it, before temperature."""


def generate(
    model: TransformerBridge,
    tokens: Int[Tensor, "1 pos"],
    *,
    edits: Mapping[Site, Edit] | None = None,
    seed: int = 0,
    cancel: Cancel | None = None,
    max_new_tokens: int = 64,
    temperature: float | int = 1.0,
) -> Iterator[GeneratedToken]:
    """Continue ``tokens`` and yield each new token as it is sampled, the end-of-text token included.

    The stream ends after the end-of-text token, after ``max_new_tokens``, where the context is full, or as
    soon as ``cancel`` is set. The noise of sampling depends only on ``seed`` and on how many tokens were
    written (Gumbel-max), so that two streams with the same seed differ only where their distributions do.
    Between tokens the model is clean: no hook is installed, no lock held and no gradient mode changed.

    Args:
        model: The model.
        tokens: One prompt, without padding.
        edits: As for ``edited``; they act on the prompt and on every new token, by absolute position.
        seed: Seed of the sampling.
        cancel: Looked at before and after every forward.
        max_new_tokens: How many tokens to write at most.
        temperature: 0 always takes the likeliest token.
    """
    if temperature < 0:
        raise ValueError(f"temperature must be 0 (the likeliest token) or more, got {temperature}.")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be 0 or more, got {max_new_tokens}.")
    if isinstance(tokens, Tensor) and (tokens.ndim != 2 or tokens.shape[0] != 1):
        raise ValueError(f"generate continues one prompt, a [1, pos] tensor, got shape {tuple(tokens.shape)}.")
    tokens = checked_tokens(model, tokens)
    if tokens.shape[1] == model.cfg.n_ctx:
        raise ValueError(f"The prompt fills the model's {model.cfg.n_ctx} positions; shorten it to leave room.")
    with edited(model, edits or {}):
        pass  # a site that the model lacks is an error here, not at the first token
    return _stream(model, tokens, edits or {}, seed, cancel, max_new_tokens, float(temperature))


def _stream(
    model: TransformerBridge,
    tokens: Tensor,
    edits: Mapping[Site, Edit],
    seed: int,
    cancel: Cancel | None,
    max_new_tokens: int,
    temperature: float,
) -> Iterator[GeneratedToken]:
    noise = torch.Generator().manual_seed(seed)
    decoder = Decoder(model.tokenizer, tokens[0].tolist())
    ends = _end_tokens(model)
    start = tokens.shape[1]
    cache: Any = None
    for position in range(start, min(start + max_new_tokens, model.cfg.n_ctx)):
        if cancel is not None and cancel.is_set():
            return
        with torch.no_grad(), edited(model, edits):
            # Without a cache (some architectures have none) the whole text is computed again.
            new = tokens if cache is None else tokens[:, -1:]
            logits, cache = run(model, new, return_type="logits_and_cache", use_cache=True, past_key_values=cache)
            logprobs = logits[0, -1].float().cpu().log_softmax(-1)
        if cancel is not None and cancel.is_set():
            return
        if bool(logprobs.isnan().any()):
            raise ValueError(
                f"The model's answer at position {position} is not a number; its weights or an edit hold NaN."
            )
        choice = int(_sample(logprobs, temperature, noise))
        tokens = torch.cat([tokens, tokens.new_tensor([[choice]])], dim=1)
        yield GeneratedToken(choice, decoder.add(choice), position, float(logprobs[choice]))
        if choice in ends:
            return


def _sample(logprobs: Tensor, temperature: float, noise: torch.Generator) -> Tensor:
    if temperature == 0:
        return logprobs.argmax()
    # The largest of logit + Gumbel noise is a sample; exponential noise e gives Gumbel noise -log e.
    exponential = torch.empty_like(logprobs).exponential_(generator=noise)
    return (logprobs / temperature - exponential.log()).argmax()


def _end_tokens(model: TransformerBridge) -> set[int]:
    config = getattr(model.original_model, "generation_config", None)
    ids = getattr(config, "eos_token_id", None)
    ids = list(ids) if isinstance(ids, list | tuple) else [ids]
    return {int(i) for i in [*ids, getattr(model.tokenizer, "eos_token_id", None)] if i is not None}
