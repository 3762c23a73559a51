"""Gemma Scope 1 (Lieberum et al. 2024, arXiv 2408.05147) and 2 (McDougall et al. 2025): JumpReLU, read only.

The first is ``params.npz``, and all else is in its path, of which the name of the repository must be part:
``gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82``. The second is ``params.safetensors`` and ``config.json``.

The transcoders of the first read what the MLP reads, but before the gain of its norm: no site, so none is named; with
the columns of ``W_enc`` divided by that gain they would read ``mlp_in``, as those of the second do. Crosscoders and
cross-layer transcoders are refused.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.dictionaries.dictionary import Dictionary
from workbench.dictionaries.formats import weights
from workbench.dictionaries.jumprelu import JumpReLU
from workbench.models import Site, Stream

FIRST, SECOND, CONFIG = "params.npz", "params.safetensors", "config.json"

NAMES = {"W_enc": "W_enc.T", "b_enc": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec", "threshold": "threshold"}

STREAMS: dict[str, Stream] = {
    "res": "resid_post",
    "att": "z",
    "mlp": "mlp_out",
    "output": "resid_post",
    "self_attn.o_proj.input": "z",
    "pre_feedforward_layernorm.output": "mlp_in",
    "post_feedforward_layernorm.output": "mlp_out",
}
"""Where its dictionaries belong: by the repository's name for the first, by a module for the second."""


def read_first(directory: Path) -> Dictionary:
    """Return a dictionary of Gemma Scope 1."""
    path = directory / FIRST
    tensors = weights.opened(path, _arrays)
    place = directory.absolute().as_posix()
    layer, l0 = (re.search(rf"/{part}_(\d+)", place) for part in ("layer", "average_l0"))
    repository = re.search(r"gemma-scope-\w+-\w+-(res|att|mlp|transcoders)\b", place)
    site = (Site(int(layer[1]), STREAMS.get(repository[1], "mlp_out")),) if layer and repository else ()
    transcodes = repository is not None and repository[1] == "transcoders"
    told = {"sites_out": site, "l0": int(l0[1]) if l0 else None, "transcodes": transcodes}
    told["sites_in"] = () if transcodes else site
    return _jumprelu(path, tensors, told, {"path": place})


def _arrays(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def read_second(directory: Path) -> Dictionary:
    """Return a dictionary of Gemma Scope 2."""
    path = directory / SECOND
    config, tensors = weights.config_of(directory / CONFIG), weights.safetensors_of(path)
    if config["architecture"] != "jump_relu":
        raise ValueError(
            f"'{directory / CONFIG}' is of architecture {config['architecture']!r}; of Gemma Scope's, this workbench "
            "reads 'jump_relu'."
        )
    read, written = (config.get(f"hf_hook_point_{side}") for side in ("in", "out"))
    told = {"l0": None, "transcodes": written not in (None, read)}
    told |= {"sites_in": _sites(read), "sites_out": _sites(written or read)}
    return _jumprelu(path, tensors, told, config)


def _sites(point: str | None) -> tuple[Site, ...]:
    found = re.search(r"layers\.(\d+)\.(.+)", point or "")
    return (Site(int(found[1]), STREAMS[found[2]]),) if found and found[2] in STREAMS else ()


def _jumprelu(path: Path, tensors: dict[str, Tensor], told: dict[str, Any], config: dict[str, Any]) -> Dictionary:
    tensors = {re.sub("^w_", "W_", key): tensor for key, tensor in tensors.items()}
    told["d_in"], told["n_features"] = tensors["W_enc"].shape
    told |= {"d_out": tensors["W_dec"].shape[-1], "provenance": {"format": "gemma_scope", "config": config}}
    names = NAMES | ({"affine_skip_connection": f"{weights.SKIP}.T"} if config.get("affine_connection") else {})
    return weights.assembled(path, JumpReLU, names, tensors, told)
