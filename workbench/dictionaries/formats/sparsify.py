"""EleutherAI's sparsify: ``cfg.json`` and ``sae.safetensors`` in a folder named after the module that is read.

Its one architecture of ours is TopK. An autoencoder subtracts ``b_dec`` from its input, a transcoder does not.
"""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from workbench.dictionaries.dictionary import Dictionary
from workbench.dictionaries.formats import weights
from workbench.dictionaries.topk import TopK
from workbench.models import Site

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"

NAMES = {"encoder.weight": "W_enc", "encoder.bias": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}


def read(directory: Path) -> Dictionary:
    """Return the dictionary that sparsify wrote."""
    path = directory / CONFIG
    config = weights.json_of(path)
    activation = "signed" if config.get("signed") else config.get("activation", "topk")
    if activation != "topk":
        raise ValueError(f"'{path}' has activation {activation!r}; of sparsify's, this workbench reads 'topk'.")
    d, transcodes = config["d_in"], config.get("transcode", False)
    told: dict[str, Any] = {
        "d_in": d,
        "n_features": config.get("num_latents") or d * config["expansion_factor"],
        "k": config["k"],
        "subtracts": not transcodes,
        "transcodes": transcodes,
    }
    told |= weights.origin(config, "sparsify", *_sites(directory.name, transcodes))
    tensors = weights.safetensors_of(directory / WEIGHTS)
    return weights.assembled(directory / WEIGHTS, TopK, NAMES, tensors, told)


def _sites(module: str, transcodes: bool) -> tuple[tuple[Site, ...], tuple[Site, ...] | None]:
    """Return what the module's name says; in a model that normalises what its MLPs write, ``mlp`` means another."""
    found = re.fullmatch(r"(?:\w+\.)*(?:layers|h)\.(\d+)(\.mlp)?", module)
    if found is None:
        return (), None
    layer, stream = int(found[1]), "mlp_out" if found[2] else "resid_post"
    if transcodes:
        return (Site(layer, "mlp_in" if found[2] else "resid_pre"),), (Site(layer, stream),)
    return (Site(layer, stream),), None


def write(dictionary: Dictionary, directory: Path) -> None:
    """Write ``dictionary`` for sparsify."""
    if not isinstance(dictionary, TopK) or not dictionary.relu or dictionary.d_in != dictionary.d_out:
        raise ValueError(
            "sparsify has nothing but rectified TopK with as many outputs as inputs, and so nothing that computes what "
            f"{dictionary!r} does; save it as it is."
        )
    config = weights.known(dictionary, "sparsify") | {
        "activation": "topk",
        "num_latents": dictionary.n_features,
        "k": dictionary.k,
        "transcode": not dictionary.autoencodes,
        "skip_connection": False,
        "d_in": dictionary.d_in,
        "workbench": weights.note(dictionary),
    }
    tensors = weights.disassembled(dictionary, NAMES, subtracts=dictionary.autoencodes)
    weights.place(
        directory,
        {WEIGHTS: partial(save_file, tensors), CONFIG: lambda path: path.write_text(json.dumps(config, indent=1))},
    )
