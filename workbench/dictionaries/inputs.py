"""From what a caller gives to the tensors a dictionary takes, with a sentence where that is not possible."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.models import Site

Batch = Tensor | Mapping[Site, Tensor]
"""Activations [batch, d] of one site, [batch, site, d] of several, or [batch, d] of each by name."""


def as_sites(sites: Site | Sequence[Site]) -> tuple[Site, ...]:
    """Return one or several sites as a tuple."""
    several = (sites,) if isinstance(sites, Site) else tuple(sites)
    if not all(isinstance(site, Site) for site in several):
        raise TypeError(f"Sites are given as Site(layer, stream) or a list of such, got {sites!r}.")
    return several


def named(sites: Sequence[Site]) -> str:
    """Return the sites as words."""
    return ", ".join(f"'{site}'" for site in sites) or "no named site"


def pick(batch: Mapping[Site, Tensor], sites: tuple[Site, ...]) -> Tensor:
    """Return the activations at ``sites``: [batch, d] for one site, [batch, site, d] for several."""
    if missing := [site for site in sites if site not in batch]:
        raise ValueError(f"The batch lacks {named(missing)}; it holds {named(list(batch))}. Record that site too.")
    if not sites:
        raise ValueError(
            f"The batch maps {named(list(batch))} to activations, but this dictionary names no site; "
            "build it with sites_in=Site(…), or give it a tensor."
        )
    if len(set(sites)) < len(sites):
        raise ValueError(
            f"This dictionary reads {named(sites)}, the same site of several models, and a mapping holds it once; "
            "give a tensor [batch, model, d]."
        )
    acts = [batch[site] for site in sites]
    if len({x.shape for x in acts}) > 1:
        shapes = ", ".join(f"'{site}' of shape {tuple(x.shape)}" for site, x in zip(sites, acts, strict=True))
        raise ValueError(f"Several sites are read as one tensor, so of one shape; this batch holds {shapes}.")
    return acts[0] if len(acts) == 1 else torch.stack(acts, dim=1)


def rows(x: Tensor, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return ``x``, whose last axes must have ``shape``, as a batch of that in the dtype and place of ``like``."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"Activations are a tensor of floating-point numbers, got {got}.")
    if x.shape[-len(shape) :] != shape:
        *sites, d = shape
        raise ValueError(
            f"This dictionary takes activations of {f'{sites[0]} sites and ' if sites else ''}width {d} here, got "
            f"shape {tuple(x.shape)}; check that it was made for this model and site."
        )
    return x.to(like).reshape(-1, *shape)


def refuse_nonfinite(x: Tensor) -> None:
    """Raise if any row of ``x`` holds NaN or infinity."""
    finite = torch.isfinite(x)
    if not finite.all():
        bad = int((~finite).flatten(1).any(1).sum())
        raise ValueError(
            f"{bad} of {len(x)} activations hold NaN or infinity; a dictionary takes finite ones. "
            "Leave those rows out, or record the model in float32."
        )


def units(x: Float[Tensor, "batch *site d"]) -> tuple[Float[Tensor, "*site d"], Float[Tensor, "*site"]]:
    """Return the mean of a sample and, of each site, the scale that gives what is left a mean square of one."""
    centre = x.mean(0)
    power = (x - centre).square().mean((0, -1))
    if not power.isfinite().all():
        raise ValueError(
            f"Activations as large as {x.abs().max():.1g} have squares beyond {x.dtype}; divide them by a constant."
        )
    # A constant leaves a rounding error, not a zero: the mean square must stand out from the centre's.
    if len(x) < 2 or (power <= 1e-12 * centre.square().mean(-1)).any():
        raise ValueError(
            f"A sample of {len(x)} activations that do not vary gives no unit of length; "
            "a dictionary is initialised on at least two different ones."
        )
    return centre, power.rsqrt()


def in_units(
    x: Float[Tensor, "batch *site d"], centre: Float[Tensor, "*site d"], scale: Float[Tensor, "*site"]
) -> Float[Tensor, "batch sites_d"]:
    """Return ``(x - centre) * scale``, the sites of each activation end to end."""
    return ((x - centre) * scale[..., None]).flatten(1)
