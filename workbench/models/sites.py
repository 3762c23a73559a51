"""A place in a model as a value, and the TransformerLens hook behind it."""

import difflib
from dataclasses import dataclass
from functools import total_ordering
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import Tensor, nn

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
else:
    # Importing transformer_lens takes seconds, so signatures are checked against the bridge's base class.
    TransformerBridge = nn.Module

Stream = Literal[
    "resid_pre",
    "ln1_scale",
    "pattern",
    "z",
    "attn_out",
    "resid_mid",
    "ln2_scale",
    "mlp_in",
    "mlp_out",
    "resid_post",
]
"""What can be read in a block, in the order in which a sequential block computes it."""

_STREAMS: tuple[str, ...] = get_args(Stream)

_HOOKS = {
    "resid_pre": "hook_resid_pre",
    "ln1_scale": "ln1.hook_scale",
    "pattern": "attn.hook_pattern",
    "z": "attn.hook_z",
    "attn_out": "hook_attn_out",
    "resid_mid": "hook_resid_mid",
    "ln2_scale": "ln2.hook_scale",
    # After the norm, what the MLP really reads; hook_mlp_in is before it and off by default.
    "mlp_in": "mlp.hook_in",
    "mlp_out": "hook_mlp_out",
    "resid_post": "hook_resid_post",
}

# For a stream that a block lacks: what a reader most likely wants instead, best first, before resid_pre.
_NEAREST = {
    "ln1_scale": ("ln2_scale",),
    "pattern": ("z", "attn_out"),
    "z": ("attn_out",),
    "attn_out": ("z", "resid_mid"),
    "ln2_scale": ("ln1_scale", "resid_mid"),
    "mlp_in": ("resid_mid", "mlp_out"),
    "mlp_out": ("mlp_in",),
}


@total_ordering
@dataclass(frozen=True)
class Site:
    """One activation of one block; sites sort in the order in which a forward computes them.

    >>> Site(3).hook
    'blocks.3.hook_resid_post'
    >>> str(Site(3, "z", head=2)), Site.parse("3.z.2") == Site(3, "z", head=2)
    ('3.z.2', True)
    """

    layer: int
    """The block, counted from 0."""

    stream: Stream = "resid_post"
    """What to read there; ``mlp_in`` is what the MLP reads, after its norm."""

    head: int | None = None
    """One attention head of ``z`` or ``pattern``; None for all."""

    def __post_init__(self) -> None:
        if self.stream not in _STREAMS:
            near = difflib.get_close_matches(str(self.stream), _STREAMS, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"{self.stream!r} is not a stream; the nearest is {near!r}, all are {', '.join(_STREAMS)}."
            )
        for name, number in (("layer", self.layer), ("head", 0 if self.head is None else self.head)):
            if not isinstance(number, Integral):
                raise TypeError(
                    f"The {name} of a site is a whole number, got {number!r}; write Site(2) or Site(2, 'z', head=1), "
                    "and of a name Site.parse('2.z.1')."
                )
            if number < 0:
                raise ValueError(f"{name.capitalize()}s count from 0, got {self!r}.")
        if self.head is not None and self.stream not in ("pattern", "z"):
            raise ValueError(f"Only z and pattern have heads, got head={self.head} with {self.stream!r}.")

    def __lt__(self, other: "Site") -> bool:
        return self._order() < other._order()

    def _order(self) -> tuple[int, int, int]:
        return self.layer, _STREAMS.index(self.stream), -1 if self.head is None else self.head

    def __repr__(self) -> str:
        head = "" if self.head is None else f", head={self.head}"
        return f"Site(layer={self.layer}, stream={self.stream!r}{head})"

    def __str__(self) -> str:
        return f"{self.layer}.{self.stream}" + ("" if self.head is None else f".{self.head}")

    @classmethod
    def parse(cls, text: str) -> "Site":
        """Return the site that ``str`` wrote as ``text``."""
        layer, _, rest = text.partition(".")
        stream, _, head = rest.partition(".")
        if not layer.isdigit() or not stream or (head and not head.isdigit()):
            raise ValueError(f"A site reads like '3.resid_post' or '3.z.2', got {text!r}.")
        return cls(int(layer), stream, int(head) if head else None)  # pyright: ignore[reportArgumentType]

    @property
    def hook(self) -> str:
        """The TransformerLens name of this site."""
        return f"blocks.{self.layer}.{_HOOKS[self.stream]}"


def part_of(acts: Tensor, site: Site) -> Tensor:
    """Return the part of a hook's tensor that belongs to ``site``."""
    if site.head is None:
        return acts
    return acts[:, site.head] if site.stream == "pattern" else acts[:, :, site.head]


def with_part(acts: Tensor, site: Site, part: Tensor) -> Tensor:
    """Return a hook's tensor with the part that belongs to ``site`` replaced."""
    if site.head is None:
        return part
    acts = acts.clone()
    part_of(acts, site).copy_(part)
    return acts


def hook_point(model: TransformerBridge, site: Site) -> Any:
    """Return the hook point of ``site``, or say which site of ``model`` is nearest."""
    if not isinstance(site, Site):
        raise TypeError(f"A site is a Site, such as Site(2), got {site!r}; of a name, give Site.parse('2.resid_post').")
    layers = model.cfg.n_layers
    if site.layer >= layers:
        near = Site(layers - 1, site.stream, site.head)
        raise ValueError(
            f"{site!r} does not exist in this model, which has {layers} layers (0 to {layers - 1}). "
            f"The nearest is {near!r}."
        )
    if site.head is not None and site.head >= model.cfg.n_heads:
        heads = model.cfg.n_heads
        raise ValueError(
            f"{site!r} does not exist in this model, which has {heads} heads (0 to {heads - 1}). "
            f"The nearest is {Site(site.layer, site.stream, heads - 1)!r}."
        )
    point = model.get_hook_point(site.hook)
    if point is None:
        candidates = [Site(site.layer, stream) for stream in (*_NEAREST.get(site.stream, ()), "resid_pre")]  # pyright: ignore[reportArgumentType]
        near = next((other for other in candidates if model.get_hook_point(other.hook) is not None), None)
        raise ValueError(f"{site!r} does not exist in this model. The nearest is {near!r}.")
    return point
