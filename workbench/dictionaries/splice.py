"""Put a dictionary into a running model."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from workbench.dictionaries.codes import Codes
from workbench.dictionaries.dictionary import Dictionary
from workbench.dictionaries.inputs import named
from workbench.models import Context, Edit, Site


def splice(
    dictionary: Dictionary,
    *,
    error: Literal["keep", "drop"] = "keep",
    change: Callable[[Codes], Codes] | None = None,
) -> Edit:
    """Return an edit that routes the activations of a site through ``dictionary``.

    Args:
        dictionary: An autoencoder of the site that the edit is placed at; one that names no site goes anywhere.
        error: What becomes of the part that the dictionary does not rebuild. "keep" adds it back, as a
            constant without gradient, so that the model computes what it did (Marks et al. 2024,
            arXiv 2403.19647); "drop" leaves it out and shows the model the reconstruction alone.
        change: What to do to the codes on the way; the error is that of the unchanged ones.
    """
    if error not in ("keep", "drop"):
        raise ValueError(f'error must be "keep" or "drop", got {error!r}.')
    if not dictionary.autoencodes:
        raise ValueError(
            "Only a dictionary that rebuilds the site it reads can be spliced in; this one reads "
            f"{dictionary.sites_in} and rebuilds {dictionary.sites_out}."
        )

    places = {_place(site) for site in dictionary.sites_in}

    def edit(acts: Tensor, context: Context) -> Tensor:
        if places and _place(context.site) not in places:
            raise ValueError(
                f"This dictionary belongs at {named(dictionary.sites_in)}, but was put at '{context.site}'; put it at "
                "its own site, or write an edit that encodes and decodes if you mean to try it elsewhere."
            )
        x = acts.flatten(2).to(dictionary.W_dec.dtype)  # in bfloat16 the error would not add up again; z has heads
        codes = dictionary.encode(x)
        clean = dictionary.decode(codes)
        y = clean if change is None else dictionary.decode(change(codes))
        return (y if error == "drop" else y + (x - clean).detach()).to(acts.dtype).view_as(acts)

    return edit


def _place(site: Site) -> Site:
    """Return one name for each place: what leaves a block is what enters the next."""
    return Site(site.layer - 1) if site.stream == "resid_pre" and site.layer else site
