"""Between the arrays of a file and a dictionary: their names and layout, and what does not fit.

A table of names leads from theirs to ours; ``.T`` marks a matrix that they keep the other way round. The same table
serves reading and writing. Nothing is rounded on the way in: where a format subtracts its decoder's bias from the
input, that bias becomes the centre of both sides, and encoder and decoder compute what they did.
"""

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch
from safetensors.torch import load_file
from torch import Tensor

from workbench.dictionaries.dictionary import Dictionary
from workbench.models import Site, Stream

T = TypeVar("T")

Names = Mapping[str, str]
"""Their name of an array → ours, with ``.T`` behind it if theirs is transposed."""

SKIP = "W_skip"

_STREAMS = {Site(0, stream).hook.removeprefix("blocks.0."): stream for stream in get_args(Stream)}


def assembled(
    where: Path, kind: Callable[..., Dictionary], names: Names, tensors: Mapping[str, Tensor], told: dict[str, Any]
) -> Dictionary:
    """Return the dictionary that ``kind(**told)`` builds, with the arrays of a file and ready to read activations.

    Args:
        where: The file, for the sentence that says what is wrong with it.
        kind: An architecture.
        names: Which array of the file is which of the dictionary's; with one for ``W_skip``, a transcoder skips.
        tensors: The arrays by their names; all of ``names`` and no more.
        told: What the file's config says: the keywords of ``kind`` and the ``provenance``; whether the encoder
            ``subtracts`` the decoder's bias; and whether the dictionary ``transcodes``. Both are False by default.
    """
    given = {"subtracts": False, "transcodes": False, **told}
    subtracts, transcodes, provenance = (given.pop(key) for key in ("subtracts", "transcodes", "provenance"))
    given |= {"skip": True} if SKIP in names.values() else {}
    try:
        dictionary = kind(**given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"'{where}' comes with a config that describes no dictionary: {error}") from None
    if transcodes and dictionary.autoencodes:
        raise ValueError(
            f"'{where}' is of a dictionary that rebuilds another site than it reads, and neither is named in words "
            "that this workbench knows."
        )
    own = dictionary.state_dict()
    due = {key: [*_turned(own[ours.removesuffix(".T")], ours).shape] for key, ours in names.items()}
    shapes = {key: [*tensor.shape] for key, tensor in tensors.items()}
    faults = [f"{key} is missing" for key in due if key not in shapes]
    faults += [f"{key} is not known" for key in shapes if key not in due]
    faults += [f"{key} has shape {shapes[key]}, not {due[key]}" for key in due if shapes.get(key, due[key]) != due[key]]
    faults += [f"{key} holds NaN or infinity" for key in shapes if not tensors[key].isfinite().all()]
    if faults:
        raise ValueError(
            f"'{where}' does not hold what its config describes: {'; '.join(faults)}. Copy or download the files "
            "again, and of one dictionary."
        )
    state = {ours.removesuffix(".T"): _turned(tensors[key].float(), ours) for key, ours in names.items()}
    if subtracts:
        state |= {"centre_in": state["b_dec"], "centre_out": state["b_dec"], "b_dec": torch.zeros_like(state["b_dec"])}
    if "threshold" in state:  # where codes are positive, one below zero is felt as zero
        state["threshold"] = state["threshold"].clamp_min(0)
    dictionary.load_state_dict(state, strict=False)
    dictionary.initialised.fill_(True)
    dictionary.provenance = provenance
    return dictionary.requires_grad_(False)


def disassembled(dictionary: Dictionary, names: Names, *, subtracts: bool) -> dict[str, Tensor]:
    """Return the folded arrays by their names; ``subtracts`` if their encoder reads ``x - b_dec`` and not ``x``."""
    own = dictionary.folded().state_dict()
    if subtracts:
        twin = deepcopy(dictionary)
        twin.centre_in.sub_(own["b_dec"])  # the part of the centre that the reader will subtract
        own = twin.folded().state_dict()
    if bad := [key for key, ours in names.items() if not own[ours.removesuffix(".T")].isfinite().all()]:
        raise ValueError(
            f"{', '.join(bad)} would hold NaN or infinity, so nothing is written; train again from a checkpoint."
        )
    return {key: _turned(own[ours.removesuffix(".T")], ours).float().cpu().contiguous() for key, ours in names.items()}


def _turned(tensor: Tensor, ours: str) -> Tensor:
    return tensor.T if ours.endswith(".T") else tensor


def sites_of(hook: str | None, head: int | None = None) -> tuple[Site, ...]:
    """Return the site of a TransformerLens hook, or none if it is no site of ours.

    >>> sites_of("blocks.3.hook_resid_post"), sites_of("blocks.3.ln2.hook_normalized")
    ((Site(layer=3, stream='resid_post'),), ())
    """
    layer, _, name = (hook or "").removeprefix("blocks.").partition(".")
    return (Site(int(layer), _STREAMS[name], head),) if layer.isdigit() and name in _STREAMS else ()


def origin(
    config: dict[str, Any], form: str, sites_in: tuple[Site, ...], sites_out: tuple[Site, ...] | None = None
) -> dict[str, Any]:
    """Return sites and provenance: those that ``noted`` wrote into a config, else what the format tells."""
    if "workbench" not in config:
        return {"sites_in": sites_in, "sites_out": sites_out, "provenance": {"format": form, "config": config}}
    sites = {side: [Site.parse(site) for site in config["workbench"][side]] for side in ("sites_in", "sites_out")}
    return {**sites, "provenance": config["workbench"]["provenance"]}


def noted(dictionary: Dictionary, form: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return ``config`` with what ``origin`` reads, and what else it held if ``dictionary`` was read in this form."""
    source, described = dictionary.provenance, dictionary.describe()
    kept = source["config"] if source.get("format") == form else {}
    sites = {side: described[side] for side in ("sites_in", "sites_out")}
    return kept | config | {"workbench": {**sites, "provenance": source}}


def opened(path: Path, read: Callable[[Path], T]) -> T:
    """Return what ``read`` makes of a file, or say that it is spoilt."""
    try:
        return read(path)
    except Exception as error:  # readers raise a dozen types, and some of their texts advise to trust the file
        raise ValueError(
            f"'{path}' is missing, truncated, corrupt, or holds more than numbers, which is not run "
            f"({type(error).__name__}); copy or download it again."
        ) from None


def config_of(path: Path) -> dict[str, Any]:
    """Return the config in a JSON file."""
    return opened(path, lambda path: dict(json.loads(path.read_text())))


def safetensors_of(path: Path) -> dict[str, Tensor]:
    """Return the arrays in a safetensors file."""
    return opened(path, load_file)
