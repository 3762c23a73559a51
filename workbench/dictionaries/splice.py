"""Put a dictionary into a running model."""

from collections.abc import Callable
from threading import get_ident
from typing import Literal

from torch import Tensor

from workbench.dictionaries.codes import Codes
from workbench.dictionaries.dictionary import Dictionary
from workbench.dictionaries.inputs import named
from workbench.models import Context, Edit, Site

Change = Callable[[Codes], Codes]


def splice(
    dictionary: Dictionary,
    *,
    error: Literal["keep", "drop"] = "keep",
    change: Change | None = None,
) -> Edit:
    """Return an edit that routes the activations of a site through ``dictionary``.

    Args:
        dictionary: An autoencoder of the site that the edit is placed at; one that names no site goes anywhere.
        error: What becomes of the part that the dictionary does not rebuild. "keep" adds it back, as a
            constant without gradient, so that the model computes what it did (Marks et al. 2024,
            arXiv 2403.19647); "drop" leaves it out and shows the model the reconstruction alone.
        change: What to do to the codes on the way; the error is that of the unchanged ones.
    """
    _refuse(dictionary, error)
    if not dictionary.autoencodes:
        raise ValueError(
            "Only a dictionary that rebuilds the site it reads can be spliced in by one edit; this one reads "
            f"{named(dictionary.sites_in)} and rebuilds {named(dictionary.sites_out)}: "
            "edited(model, spliced(dictionary)) places an edit at each."
        )
    places = {_place(site) for site in dictionary.sites_in}

    def edit(acts: Tensor, context: Context) -> Tensor:
        if places and _place(context.site) not in places:
            raise ValueError(
                f"This dictionary belongs at {named(dictionary.sites_in)}, but was put at '{context.site}'; put it at "
                "its own site, or write an edit that encodes and decodes if you mean to try it elsewhere."
            )
        return _through(dictionary, acts, acts, error, change)

    return edit


def spliced(
    dictionary: Dictionary,
    *,
    error: Literal["keep", "drop"] = "keep",
    change: Change | None = None,
) -> dict[Site, Edit]:
    """Return the edits, by site, that route a model through ``dictionary``.

    ``with edited(model, spliced(transcoder)):`` places two edits, one that reads and one that writes in the same
    forward. What the model computes between them still runs; with the error kept it gives the error, which has no
    gradient, so that all gradient between the two sites is that of the dictionary. An autoencoder takes the one edit
    of ``splice``.

    Args:
        dictionary: A dictionary of named sites.
        error: As for ``splice``.
        change: As for ``splice``.
    """
    _refuse(dictionary, error)
    if not dictionary.sites_in:
        raise ValueError("This dictionary names no site to be put at; build it with sites_in=Site(…), or use splice.")
    (read,), (write,) = dictionary.sites_in, dictionary.sites_out
    if dictionary.autoencodes:
        return {read: splice(dictionary, error=error, change=change)}
    if not read < write:
        raise ValueError(
            f"This dictionary rebuilds '{write}' from '{read}', which a forward computes later; it can be spliced in "
            "only where what it reads comes first."
        )
    # By thread, what was read, and the positions there, which each forward makes anew.
    held: dict[int, tuple[Tensor, Tensor]] = {}

    def reading(acts: Tensor, context: Context) -> Tensor:
        held[get_ident()] = acts, context.positions
        return acts

    def writing(acts: Tensor, context: Context) -> Tensor:
        x, positions = held.pop(get_ident(), (acts, None))
        if positions is not context.positions:
            raise ValueError(
                f"What belongs at '{write}' is computed from '{read}', where this forward has not been edited; "
                "give edited both edits at once."
            )
        return _through(dictionary, x, acts, error, change)

    return {read: reading, write: writing}


def _through(dictionary: Dictionary, x: Tensor, y: Tensor, error: str, change: Change | None) -> Tensor:
    """Return what takes the place of ``y``."""
    # In bfloat16 the error would not add up again; z has its heads on an axis of their own.
    x, true = (acts.flatten(2).to(dictionary.W_dec.dtype) for acts in (x, y))
    codes, beside = dictionary.encode(x), dictionary.skip(x)
    clean = dictionary.decode(codes) + beside
    new = clean if change is None else dictionary.decode(change(codes)) + beside
    return (new if error == "drop" else new + (true - clean).detach()).to(y.dtype).view_as(y)


def _refuse(dictionary: Dictionary, error: str) -> None:
    if error not in ("keep", "drop"):
        raise ValueError(f'error must be "keep" or "drop", got {error!r}.')
    if max(len(dictionary.sites_in), len(dictionary.sites_out)) > 1:
        raise ValueError(
            f"The codes of this dictionary need {named(dictionary.sites_in)} at once, which a forward computes one "
            "after the other, so it cannot be spliced in; record its sites, and edit with what it decodes."
        )


def _place(site: Site) -> Site:
    """Return one name for each place: what leaves a block is what enters the next."""
    return Site(site.layer - 1) if site.stream == "resid_pre" and site.layer else site
