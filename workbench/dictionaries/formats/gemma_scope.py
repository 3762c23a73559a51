"""Gemma Scope 1 (Lieberum et al. 2024, arXiv 2408.05147) and 2 (McDougall et al. 2025): JumpReLU, read only.

The first is ``params.npz``, and all else is in its path, of which the name of the repository must be part:
``gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82``. The second is ``params.safetensors`` and ``config.json``.

The transcoders of the first read what the MLP reads, before the gain of its norm: no site, so none is named; multiply
``W_enc`` by the inverse of that gain to read ``mlp_in``. Those of the second read ``mlp_in``. Crosscoders and
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
    try:
        with np.load(path, allow_pickle=False) as arrays:
            tensors = {key: torch.from_numpy(arrays[key]) for key in arrays}
    except Exception as error:  # of a spoilt archive: of half a dozen types
        raise ValueError(f"'{path}' is truncated or corrupt ({error}); copy or download it again.") from None
    place = directory.absolute().as_posix()
    layer, l0 = (re.search(rf"/{part}_(\d+)", place) for part in ("layer", "average_l0"))
    repository = re.search(r"gemma-scope-\w+-\w+-(res|att|mlp|transcoders)\b", place)
    site = (Site(int(layer[1]), STREAMS.get(repository[1], "mlp_out")),) if layer and repository else ()
    told = {"sites_in": site, "sites_out": site, "l0": int(l0[1]) if l0 else None}
    if repository and repository[1] == "transcoders":
        told["sites_in"] = ()
    return _jumprelu(path, tensors, told, {"path": place})


def read_second(directory: Path) -> Dictionary:
    """Return a dictionary of Gemma Scope 2."""
    path = directory / SECOND
    config, tensors = weights.json_of(directory / CONFIG), weights.safetensors_of(path)
    if config["architecture"] != "jump_relu":
        raise ValueError(
            f"'{directory / CONFIG}' is of architecture {config['architecture']!r}; of Gemma Scope's, this workbench "
            "reads 'jump_relu'."
        )
    points = [config.get(f"hf_hook_point_{side}") for side in ("in", "out")]
    told = {"sites_in": _sites(points[0]), "l0": None, "transcodes": points[1] not in (None, points[0])}
    told["sites_out"] = _sites(points[1]) if told["transcodes"] else told["sites_in"]
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
