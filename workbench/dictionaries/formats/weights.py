"""Between the arrays of a foreign file and a dictionary: their names and layout, and what does not fit.

A table of names leads from theirs to ours; ``.T`` marks a matrix that they keep the other way round. The same table
serves reading and writing. Nothing is rounded on the way in: where a format subtracts its decoder's bias from the
input, that bias becomes the centre of both sides, and encoder and decoder compute what they did.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from workbench.dictionaries import files
from workbench.dictionaries.dictionary import Dictionary
from workbench.models import Site, Stream

Names = Mapping[str, str]
"""Their name of an array → ours, with ``.T`` behind it if theirs is transposed."""

_STREAMS = {Site(0, stream).hook.removeprefix("blocks.0."): stream for stream in get_args(Stream)}


def assembled(
    where: Path, kind: Callable[..., Dictionary], names: Names, tensors: Mapping[str, Tensor], told: Mapping[str, Any]
) -> Dictionary:
    """Return the dictionary that ``kind(**told)`` builds, with the arrays of a file and ready to read activations.

    Args:
        where: The file, for the sentence that says what is wrong with it.
        kind: An architecture.
        names: Which array of the file is which of the dictionary's.
        tensors: The arrays by their names; all of ``names`` and no more.
        told: What the file's config says: the keywords of ``kind`` and the ``provenance``; whether the encoder
            ``subtracts`` the decoder's bias; and whether the dictionary ``transcodes``. Both are False by default.
    """
    told = dict(told)
    subtracts, transcodes = told.pop("subtracts", False), told.pop("transcodes", False)
    provenance = told.pop("provenance")
    try:
        dictionary = kind(**told)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"'{where}' comes with a config that describes no dictionary: {error}") from None
    if transcodes and dictionary.autoencodes:
        raise ValueError(
            f"'{where}' is of a dictionary that rebuilds another site than it reads, and neither is named in words "
            "that this workbench knows."
        )
    own = dictionary.state_dict()
    due = {key: [*_turned(own[ours.removesuffix(".T")], ours).shape] for key, ours in names.items()}
    faults = [f"{key} is missing" for key in due if key not in tensors]
    faults += [f"{key} is not known" for key in tensors if key not in due]
    shapes = {key: [*tensor.shape] for key, tensor in tensors.items() if key in due}
    faults += [f"{key} has shape {shapes[key]}, not {due[key]}" for key in shapes if shapes[key] != due[key]]
    faults += [f"{key} holds NaN or infinity" for key in shapes if not tensors[key].isfinite().all()]
    if faults:
        raise ValueError(
            f"'{where}' does not hold what its config describes: {'; '.join(faults)}. Copy or download the files "
            "again, and of one dictionary."
        )
    state = {ours.removesuffix(".T"): _turned(tensors[key].float(), ours) for key, ours in names.items()}
    if subtracts:
        state |= {"centre_in": state["b_dec"], "centre_out": state["b_dec"], "b_dec": torch.zeros_like(state["b_dec"])}
    if "threshold" in state:  # a code is positive, so no threshold below zero is ever felt
        state["threshold"] = state["threshold"].clamp_min(0)
    dictionary.load_state_dict(state, strict=False)
    dictionary.initialised.fill_(True)
    dictionary.provenance = provenance
    return dictionary.requires_grad_(False)


def disassembled(dictionary: Dictionary, names: Names, *, subtracts: bool) -> dict[str, Tensor]:
    """Return the folded arrays by their names; ``subtracts`` if their encoder reads ``x - b_dec`` and not ``x``."""
    folded = dictionary.folded()
    if subtracts:
        twin = deepcopy(dictionary)
        twin.centre_in.sub_(folded.b_dec.detach())  # the part of the centre that the reader will subtract
        folded = twin.folded()
    own = folded.state_dict()
    return {key: _turned(own[ours.removesuffix(".T")], ours).float().cpu().contiguous() for key, ours in names.items()}


def centred(dictionary: Dictionary) -> bool:
    """Whether the encoder reads ``x`` less the decoder's bias, as formats do that subtract it."""
    return dictionary.autoencodes and torch.equal(dictionary.centre_in, dictionary.folded().b_dec)


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
    """Return sites and provenance: those that workbench noted as it wrote the file, else what the file tells."""
    if "workbench" in config:
        note = config["workbench"]
        sites = {side: [Site.parse(site) for site in note[side]] for side in ("sites_in", "sites_out")}
        return {**sites, "provenance": note["provenance"]}
    provenance = {"format": form, "config": config}
    return {"sites_in": sites_in, "sites_out": sites_out, "provenance": provenance}


def note(dictionary: Dictionary) -> dict[str, Any]:
    """Return what ``origin`` reads; other packages skip it."""
    described = dictionary.describe()
    return {key: described[key] for key in ("sites_in", "sites_out")} | {"provenance": dictionary.provenance}


def known(dictionary: Dictionary, form: str) -> dict[str, Any]:
    """Return the config that ``dictionary`` was read with, if in this format, so that writing keeps what it told."""
    return dictionary.provenance["config"] if dictionary.provenance.get("format") == form else {}


def json_of(path: Path) -> dict[str, Any]:
    """Return the config in a JSON file."""
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"'{path}' is missing, truncated or no JSON ({error}); copy or download it again.") from None
    if not isinstance(config, dict):
        raise ValueError(f"'{path}' holds {type(config).__name__}, not a config; copy or download it again.")
    return config


def safetensors_of(path: Path) -> dict[str, Tensor]:
    """Return the arrays in a safetensors file."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"'{path}' is truncated or corrupt ({error}); copy or download it again.") from None


def place(directory: Path, contents: Mapping[str, Callable[[Path], object]]) -> None:
    """Write files into ``directory``, by name, the first first: whole ones, and none in place of another."""
    if there := [name for name in contents if (directory / name).exists()]:
        raise ValueError(f"'{directory}' already holds {' and '.join(there)}, left as is; give another directory.")
    with files.explained(directory / [*contents][-1]):
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".") as folder:
            for name, write in contents.items():
                part = Path(folder) / name
                part.touch()
                mode = part.stat().st_mode
                write(part)
                part.chmod(mode)  # safetensors makes files that only their owner can read
            try:
                for name in contents:
                    files.settle(Path(folder) / name, directory / name)
            except BaseException:
                for name in contents:
                    (directory / name).unlink(missing_ok=True)
                raise
