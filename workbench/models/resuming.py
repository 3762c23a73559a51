"""Run a model on from a site."""

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.models.forward import checked_tokens, lock, run
from workbench.models.hooks import installed, writing
from workbench.models.sites import Site, TransformerBridge, hook_point


def resume(
    model: TransformerBridge,
    site: Site,
    acts: Float[Tensor, "..."],
    *,
    tokens: Int[Tensor, "rows pos"],
    mask: Bool[Tensor, "rows pos"] | None = None,
) -> Float[Tensor, "batch pos d_vocab"]:
    """Return the logits of a forward in which ``site`` has the value ``acts``.

    From ``resid_pre`` and ``resid_post`` the blocks before are skipped; from other sites the whole forward
    runs with the value put in. Edits that are open act on ``acts`` as on any activation. Gradient flows to
    ``acts`` where the caller has it switched on.

    Args:
        model: The model.
        site: Where to resume.
        acts: The activations there, as ``record`` returns them.
        tokens: The tokens that ``acts`` belong to; one row serves a whole batch of ``acts``.
        mask: As for ``record``.
    """
    point = hook_point(model, site)
    batch = acts.shape[0]
    tokens = checked_tokens(model, tokens)
    if tokens.shape[0] not in (1, batch):
        raise ValueError(f"tokens must have one row or as many as acts ({batch}), got {tokens.shape[0]} rows.")

    def replace(there: Tensor) -> Tensor:
        if there.shape != acts.shape:
            raise ValueError(f"acts at {site} must have shape {tuple(there.shape)}, got {tuple(acts.shape)}.")
        return acts.to(there)

    after = site.stream == "resid_post"
    count = site.layer + after if site.stream in ("resid_pre", "resid_post") else 0
    blocks = list(model.blocks)[:count]
    with (
        lock(model),
        installed(writing(model, site, replace, first=True)),
        _skipping(model, blocks, point if after else None),
    ):
        rows = None if mask is None else mask.expand(batch, -1)
        return run(model, tokens.expand(batch, -1), rows, use_cache=False)


# What a model's blocks return beside the hidden state: None for the bare tensor, else the rest of a tuple, empty.
# Seen on the first block the first time.
_rest: weakref.WeakKeyDictionary[TransformerBridge, tuple[None, ...] | None] = weakref.WeakKeyDictionary()


@contextmanager
def _skipping(model: TransformerBridge, blocks: Sequence[Any], point: Any | None) -> Iterator[None]:
    """Let ``blocks`` hand on what they are given; the last of them still fires ``point``, if there is one."""
    owner = threading.get_ident()

    def skip(block: Any, /, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != owner:
            return type(block).forward(block, *args, **kwargs)
        hidden = args[0] if args else kwargs["hidden_states"]
        if point is not None and block is blocks[-1]:
            hidden = point(hidden)
        rest = _rest[model]
        return hidden if rest is None else (hidden, *rest)

    def look(module: Any, args: Any, output: Any) -> None:
        _rest[model] = (None,) * (len(output) - 1) if isinstance(output, tuple) else None

    with ExitStack() as stack:
        for number, block in enumerate(blocks):
            if number == 0 and model not in _rest:
                stack.callback(block.register_forward_hook(look).remove)
                continue
            # Through __dict__, since a bridge hands attributes it does not know to the module it wraps.
            stack.callback(_restore, block, block.__dict__.get("forward"))
            block.__dict__["forward"] = partial(skip, block)
        yield


def _restore(block: Any, forward: Callable[..., Any] | None) -> None:
    if forward is None:
        block.__dict__.pop("forward", None)
    else:
        block.__dict__["forward"] = forward
