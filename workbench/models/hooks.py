"""Read activations and edit them.

Hooks live only inside a call or a ``with``, are removed however it ends, and touch no hook of anybody else.
They act only in the thread that installed them, so a worker that streams steered text never changes what a
notebook cell computes meanwhile on the same model. Where several act at one site, the outermost ``edited``
acts first, the inner ones see its result, and ``record`` sees the result of all that were open before it.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.models.forward import checked_tokens, run
from workbench.models.sites import Site, TransformerBridge, hook_point, part_of, with_part


@dataclass(frozen=True)
class Context:
    """What an edit may know about the slice of the text that is being computed now."""

    positions: Int[Tensor, "batch pos"]
    """Absolute positions: 0 is the first real token of a row, with and without a cache or left padding."""

    tokens: Int[Tensor, "batch pos"]
    """Token ids; -1 where the model was called with embeddings."""

    mask: Bool[Tensor, "batch pos"]
    """False at padding."""

    site: Site
    """Where the edit acts."""


Edit = Callable[[Tensor, Context], Tensor]
"""Takes a site's activations, which it may change in place, and returns them in the same shape."""


class Hook(NamedTuple):
    """A function on the tensor at a hook point; what it returns, if anything, takes the tensor's place."""

    point: Any
    function: Callable[[Tensor], Tensor | None]
    first: bool = False


@contextmanager
def installed(hooks: Iterable[Hook]) -> Iterator[None]:
    """Hold ``hooks``, which act in this thread only."""
    owner = threading.get_ident()

    def guarded(function: Callable[[Tensor], Tensor | None]) -> Callable[..., Tensor | None]:
        return lambda acts, hook: function(acts) if threading.get_ident() == owner else None

    def remove(point: Any, handle: Any) -> None:
        handle.hook.remove()
        point.fwd_hooks[:] = [other for other in point.fwd_hooks if other is not handle]

    with ExitStack() as stack:
        for point, function, first in hooks:
            stack.callback(remove, point, point.add_hook(guarded(function), prepend=first))
        yield


def writing(
    model: TransformerBridge, site: Site, write: Callable[[Tensor], Tensor], *, first: bool = False
) -> list[Hook]:
    """Return the hooks that put ``write(acts)`` in the place of the activations at ``site``."""
    here = Hook(hook_point(model, site), lambda acts: with_part(acts, site, write(part_of(acts, site))), first)
    if site.stream == "resid_mid":
        return _writing_mid(model, site, here)
    if site.stream == "pattern":
        return _writing_pattern(model, site, here)
    return [here]


def _writing_mid(model: TransformerBridge, site: Site, here: Hook) -> list[Hook]:
    # The hook sees only what the second norm reads; the residual stream itself passes by it and is joined again
    # at the end of the block, so the change is added there.
    change: list[Tensor] = []

    def at_norm(acts: Tensor) -> Tensor | None:
        new = here.function(acts)
        assert new is not None
        change[:] = [new - acts]
        return new

    post = hook_point(model, Site(site.layer, "resid_post"))
    return [here._replace(function=at_norm), Hook(post, lambda acts: acts + change.pop(), first=True)]


def _writing_pattern(model: TransformerBridge, site: Site, here: Hook) -> list[Hook]:
    # Some models compute attention in one piece and show its pattern afterwards, when changing it changes
    # nothing. There z comes first.
    order: list[str] = []

    def at_pattern(acts: Tensor) -> Tensor | None:
        if order == ["z"]:
            raise ValueError(
                f"{site!r} can be read but not edited in this model, which computes attention in one piece; "
                f"edit {Site(site.layer, 'z', site.head)!r}."
            )
        new = here.function(acts)
        order[:] = ["pattern"]
        return new

    def at_z(acts: Tensor) -> None:
        order[:] = [] if order else ["z"]

    return [here._replace(function=at_pattern), Hook(hook_point(model, Site(site.layer, "z")), at_z)]


class _Reached(Exception):
    """Ends a forward once everything asked for has been seen."""


def record(
    model: TransformerBridge,
    tokens: Int[Tensor, "batch pos"],
    sites: Sequence[Site],
    *,
    mask: Bool[Tensor, "batch pos"] | None = None,
    grad: bool = False,
) -> dict[Site, Float[Tensor, "..."]]:
    """Run ``tokens`` through ``model`` once, up to the last of ``sites``, and return the activations there.

    Args:
        model: The model.
        tokens: Token ids.
        sites: What to read; one forward serves them all.
        mask: False at padding, on either side: attention skips it and positions count real tokens only.
            Activations at padding mean nothing. Padding on the right needs no mask: attention is causal.
        grad: Keep the graph, which starts at the token embeddings, so that activations can be differentiated
            with respect to earlier ones.
    """
    if isinstance(sites, Site):
        raise TypeError(f"record takes a list of sites, got one; write [{sites!r}].")
    points = {site: hook_point(model, site) for site in sites}
    if not points:
        raise ValueError("record needs at least one site, such as Site(0).")
    found: dict[Site, Tensor] = {}

    def keep(site: Site, acts: Tensor) -> None:
        found[site] = part_of(acts, site) if grad else part_of(acts, site).detach()
        if len(found) == len(points):
            raise _Reached

    hooks = [Hook(point, partial(keep, site)) for site, point in points.items()]
    if grad:
        hooks.append(Hook(model.get_hook_point("hook_embed"), _root))
    tokens = checked_tokens(model, tokens)
    with torch.set_grad_enabled(grad), installed(hooks):
        try:
            run(model, tokens, mask, use_cache=False)
        except _Reached:
            pass
    for site in points:
        if site not in found:
            raise ValueError(f"{site!r} exists in this model, but its forward never computes it.")
    return {site: found[site] for site in points}


def _root(embedded: Tensor) -> Tensor | None:
    # Parameters take no gradient, so without a root there would be no graph.
    return None if embedded.requires_grad else embedded.detach().requires_grad_()


@contextmanager
def edited(model: TransformerBridge, edits: Mapping[Site, Edit]) -> Iterator[None]:
    """Apply ``edits`` to every forward of ``model`` in this thread while the block is open.

    Each edit gets the activations at its site and a ``Context``. It acts alike in plain forwards, in cached
    generation and under left padding, because positions are absolute. An edit may run the model itself; ``edits``
    are off meanwhile.
    """
    owner = threading.get_ident()
    now: list[Callable[[Site], Context]] = []
    editing = False

    def look(module: Any, args: tuple, kwargs: dict | None = None) -> None:
        # Another thread that runs the model while this hook is being removed gets it without its keywords.
        if threading.get_ident() == owner and not editing:
            now[:] = [_context(args, kwargs or {})]

    def write(site: Site, edit: Edit, acts: Tensor) -> Tensor:
        nonlocal editing
        if editing:
            return acts
        editing = True
        try:
            # A copy, so that an edit in place cannot reach what was recorded before it.
            new = edit(acts.clone(), now[0](site))
        finally:
            editing = False
        if not isinstance(new, Tensor) or new.shape != acts.shape:
            got = f"shape {tuple(new.shape)}" if isinstance(new, Tensor) else type(new).__name__
            raise ValueError(
                f"The edit at {site} must return a tensor of the shape it was given, {tuple(acts.shape)}, got {got}."
            )
        return new.to(acts)

    for site, edit in edits.items():
        if not callable(edit):
            raise TypeError(f"The edit at {site} must be a function of (acts, context), got {edit!r}.")
    hooks = [hook for site, edit in edits.items() for hook in writing(model, site, partial(write, site, edit))]
    with ExitStack() as stack:
        if hooks:
            # Of the wrapped model, since every way to run it ends there, Hugging Face's generate included.
            stack.callback(model.original_model.register_forward_pre_hook(look, with_kwargs=True).remove)
            stack.enter_context(installed(hooks))
        yield


def _context(args: tuple, kwargs: dict) -> Callable[[Site], Context]:
    """Read positions, tokens and mask off a call of the wrapped Hugging Face model; the site is yet to come."""
    tokens = kwargs.get("input_ids", args[0] if args else None)
    if tokens is None:
        embeds = kwargs["inputs_embeds"]
        tokens = torch.full(embeds.shape[:2], -1, device=embeds.device)
    batch, pos = tokens.shape
    past = kwargs.get("past_key_values")
    start = past.get_seq_length() if past is not None else 0
    positions = torch.arange(start, start + pos, device=tokens.device).expand(batch, pos)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    attention = kwargs.get("attention_mask")
    if attention is not None and attention.ndim == 2:
        mask = attention.bool()[:, -pos:]
        positions = (attention.long().cumsum(1) - 1).clamp(min=0)[:, -pos:]
    given = kwargs.get("position_ids")
    if given is not None and given.ndim == 2:
        positions = given.expand(batch, pos)
    return partial(Context, positions, tokens, mask)
