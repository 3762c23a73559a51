"""Dictionaries on disk: ``dictionary.json`` and one safetensors file.

What is stored is always the folded dictionary, whose weights act on activations as they are, so that any
reader gets codes and reconstructions in the units of the activations from four arrays and two products.
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from workbench.dictionaries import files
from workbench.dictionaries.baselines import ICA, NMF, PCA, Neurons, Random
from workbench.dictionaries.batchtopk import BatchTopK
from workbench.dictionaries.crosscoder import Crosscoder
from workbench.dictionaries.dictionary import Dictionary
from workbench.dictionaries.featurechoice import FeatureChoice
from workbench.dictionaries.gated import Gated
from workbench.dictionaries.groupbias import GroupBias
from workbench.dictionaries.jumprelu import JumpReLU
from workbench.dictionaries.matryoshka import Matryoshka
from workbench.dictionaries.pursuit import MatchingPursuit
from workbench.dictionaries.relu import ReLU
from workbench.dictionaries.topk import TopK
from workbench.models import Site

ARCHITECTURES: dict[str, Callable[..., Dictionary]] = {
    kind.__name__: kind
    for kind in (
        *(TopK, ReLU, Gated, JumpReLU, BatchTopK, FeatureChoice, Matryoshka, MatchingPursuit, Crosscoder, GroupBias),
        *(PCA, ICA, NMF, Neurons, Random),
    )
}

PRETRAINED = Path(__file__).parent.parent / "pretrained"

SHIPPED = "dictionaries"
"""The folder beside a shipped model that holds its dictionaries."""

NAME = "dictionary"

UNITS = {
    *("centre_in", "centre_out", "scale_in", "scale_out", "initialised"),
    *("risen", "density", "phase", "fires", "peak", "seen"),
}
"""What folding empties, or only training needs, and a file therefore leaves out."""


def save(dictionary: Dictionary, directory: str | Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write a dictionary and its ``provenance`` into ``directory``, replacing an earlier one at once.

    Loading gives ``dictionary.folded()`` back, exactly with float32. A half-precision ``dtype`` halves the
    matrices and leaves vectors alone: a bias holds the centre of the activations and can be large.
    """
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"dtype must be float32, float16 or bfloat16, got {dtype}.")
    folded = dictionary.folded() if dtype == torch.float32 else _rounded(dictionary, dtype)
    state = {key: tensor for key, tensor in folded.state_dict().items() if key not in UNITS}
    tensors = {key: tensor.to(dtype if key.startswith("W_") else torch.float32) for key, tensor in state.items()}
    if bad := [key for key, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ValueError(
            f"{', '.join(bad)} would hold NaN or infinity with {dtype}, so nothing is written; save in float32, and if "
            "that does not help, go back to a checkpoint."
        )
    manifest = {**dictionary.describe(), "provenance": dictionary.provenance}
    files.write(Path(directory), NAME, manifest, tensors)


def shipped() -> dict[str, Path]:
    """Return the directories of the shipped dictionaries by their names, ``"tiny/2.resid_post"``."""
    places = (file.parent for file in sorted(PRETRAINED.glob(f"*/{SHIPPED}/*/{NAME}.json")))
    return {f"{place.parts[-3]}/{place.name}": place for place in places}


def read(directory: Path) -> Dictionary:
    """Return what ``save`` wrote, in float32 and with parameters that take no gradient."""
    manifest, tensors = files.read(directory, NAME)
    dictionary = _empty(manifest, directory)
    shapes = {key: tensor.shape for key, tensor in dictionary.state_dict().items() if key not in UNITS}
    if shapes != (found := {key: tensor.shape for key, tensor in tensors.items()}):
        raise ValueError(f"'{directory}' should hold tensors {shapes}, but holds {found}; save it again.")
    dictionary.load_state_dict({key: tensor.float() for key, tensor in tensors.items()}, strict=False)
    dictionary.initialised.fill_(True)
    dictionary.provenance = manifest.get("provenance", {})
    return dictionary.requires_grad_(False)


@torch.no_grad()
def _rounded(dictionary: Dictionary, dtype: torch.dtype) -> Dictionary:
    """Return the folded dictionary, its matrices rounded after the scale and before the centre goes into its biases.

    So the biases make up for what rounding does where the centre is large.
    """
    scaled = deepcopy(dictionary)
    scaled.centre_in.zero_()
    scaled.centre_out.zero_()
    scaled = scaled.folded()
    for name, parameter in scaled.named_parameters():
        if name.startswith("W_"):
            parameter.copy_(parameter.to(dtype))
    scaled.centre_in.copy_(dictionary.centre_in)
    scaled.centre_out.copy_(dictionary.centre_out)
    return scaled.folded()


def _empty(manifest: dict[str, Any], directory: Path) -> Dictionary:
    architecture = manifest.get("architecture")
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"'{directory}' holds a dictionary of architecture {architecture!r}; this workbench knows "
            f"{', '.join(ARCHITECTURES)}. Update workbench, or load it with the package that wrote it."
        )
    try:
        return ARCHITECTURES[architecture](
            manifest["d_in"],
            manifest["n_features"],
            d_out=manifest["d_out"],
            sites_in=[Site.parse(site) for site in manifest["sites_in"]],
            sites_out=[Site.parse(site) for site in manifest["sites_out"]],
            **manifest["options"],
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"'{directory / NAME}.json' does not describe a {architecture} ({error!r}).") from None
