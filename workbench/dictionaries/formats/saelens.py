"""SAELens, version 6 and the plain cases of earlier ones: ``cfg.json`` and ``sae_weights.safetensors``.

Where a topk was trained with ``rescale_acts_by_decoder_norm``, its codes are lengths along rows of norm one, which
ours then have. What has a threshold for all features or for each (JumpReLU, BatchTopK, Matryoshka, FeatureChoice) is
written as jumprelu and comes back as ``JumpReLU``. Not exchanged: matching_pursuit, which goes on for one more step
where ours stops; TopK with negative codes, which SAELens rectifies; and TopK and Gated transcoders.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from workbench.dictionaries.batchtopk import BatchTopK
from workbench.dictionaries.dictionary import Dictionary
from workbench.dictionaries.featurechoice import FeatureChoice
from workbench.dictionaries.formats import weights
from workbench.dictionaries.gated import Gated
from workbench.dictionaries.jumprelu import JumpReLU
from workbench.dictionaries.matryoshka import Matryoshka
from workbench.dictionaries.relu import ReLU
from workbench.dictionaries.topk import TopK

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"

VERSION = "6.0.0"
"""The first version of the layout that is written; later ones read it."""

BOTH = {"W_enc": "W_enc.T", "W_dec": "W_dec", "b_dec": "b_dec"}
LINEAR = BOTH | {"b_enc": "b_enc"}
GATED = BOTH | {"b_gate": "b_enc", "b_mag": "b_mag", "r_mag": "r_mag"}
JUMP = LINEAR | {"threshold": "threshold"}

READ: dict[str, tuple[Callable[..., Dictionary], weights.Names]] = {
    "standard": (ReLU, LINEAR),
    "topk": (TopK, LINEAR),
    "gated": (Gated, GATED),
    "jumprelu": (partial(JumpReLU, l0=None), JUMP),
    "transcoder": (ReLU, LINEAR),
    "jumprelu_transcoder": (partial(JumpReLU, l0=None), JUMP),
}
"""SAELens's architectures, and ours that compute the same."""

WRITTEN = {ReLU: "standard", TopK: "topk", Gated: "gated"} | dict.fromkeys(
    (JumpReLU, BatchTopK, Matryoshka, FeatureChoice), "jumprelu"
)


def read(directory: Path) -> Dictionary:
    """Return the dictionary that SAELens wrote."""
    path = directory / CONFIG
    config = _current(weights.json_of(path), path)
    architecture, metadata = config["architecture"], config["metadata"]
    if architecture not in READ:
        raise ValueError(
            f"'{path}' is of architecture {architecture!r}; of SAELens's, this workbench reads {', '.join(READ)}."
        )
    if (normalised := config.get("normalize_activations")) not in (None, "none"):
        raise ValueError(
            f"'{path}' has normalize_activations={normalised!r}, by numbers that are not in its files; fold that in "
            "with SAELens, and save it again."
        )
    kind, names = READ[architecture]
    tensors = weights.safetensors_of(directory / WEIGHTS)
    if "scaling_factor" in tensors and (tensors["scaling_factor"] == 1).all():
        del tensors["scaling_factor"]  # early versions wrote one even where it did nothing
    told: dict[str, Any] = {
        "d_in": config["d_in"],
        "n_features": config["d_sae"],
        "subtracts": config.get("apply_b_dec_to_input", True),
    }
    sites_in, sites_out = weights.sites_of(metadata.get("hook_name"), metadata.get("hook_head_index")), None
    if architecture == "topk":
        told["k"] = config["k"]
        if config.get("rescale_acts_by_decoder_norm"):
            lengths = tensors["W_dec"].norm(dim=1)
            tensors |= {key: tensors[key] * lengths for key in ("W_enc", "b_enc")}
            tensors["W_dec"] = tensors["W_dec"] / lengths[:, None]
    if "transcoder" in architecture:
        sites_out = weights.sites_of(metadata.get("hook_name_out"))
        told |= {"d_out": config["d_out"], "subtracts": False, "transcodes": True}
    told |= weights.origin(metadata, "saelens", sites_in, sites_out)
    return weights.assembled(directory / WEIGHTS, kind, names, tensors, told)


def _current(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return a config in the words of version 6."""
    metadata = config.get("metadata") or {}
    version = str(config.get("sae_lens_version") or metadata.get("sae_lens_version") or "0")
    major = version.partition(".")[0]
    if major.isdigit() and int(major) > 6:
        raise ValueError(f"'{path}' was written by SAELens {version}, this workbench reads 6; update workbench.")
    if major != "6":
        metadata = {"hook_name": config.get("hook_point"), "hook_head_index": config.get("hook_point_head_index")}
        metadata |= config
        k = (config.get("activation_fn_kwargs") or {}).get("k")
        if k is not None and "topk" in (config.get("activation_fn"), config.get("activation_fn_str")):
            config = config | {"architecture": "topk", "k": k}
        if config.get("normalize_activations") is False:
            config = config | {"normalize_activations": "none"}
    return {"architecture": "standard"} | config | {"metadata": metadata}


def write(dictionary: Dictionary, directory: Path) -> None:
    """Write ``dictionary`` for SAELens."""
    architecture = str(WRITTEN.get(type(dictionary)))
    if not dictionary.autoencodes:
        architecture = {"standard": "transcoder", "jumprelu": "jumprelu_transcoder"}.get(architecture, "None")
    if architecture not in READ or not getattr(dictionary, "relu", True):
        raise ValueError(f"SAELens has no architecture that computes what {dictionary!r} does; save it as it is.")
    subtracts = weights.centred(dictionary)
    tensors = weights.disassembled(dictionary, READ[architecture][1], subtracts=subtracts)
    if "threshold" in tensors:
        tensors["threshold"] = tensors["threshold"].expand(dictionary.n_features).contiguous()
    config = {
        "architecture": architecture,
        "d_in": dictionary.d_in,
        "d_sae": dictionary.n_features,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": subtracts,
        "normalize_activations": "none",
        "reshape_activations": "none",
    }
    kept = weights.known(dictionary, "saelens")
    metadata = kept | {"sae_lens_version": VERSION} | ({} if kept else {"workbench": weights.note(dictionary)})
    for site in dictionary.sites_in:
        metadata |= {"hook_name": site.hook, "hook_head_index": site.head}
        if site.stream == "z" and site.head is None:
            config["reshape_activations"] = "hook_z"  # SAELens flattens the heads, as our stores do
    if not dictionary.autoencodes:
        config["d_out"] = dictionary.d_out
        for site in dictionary.sites_out:
            metadata["hook_name_out"] = site.hook
    if isinstance(dictionary, TopK):
        config["k"] = dictionary.k
    weights.place(
        directory,
        {
            WEIGHTS: partial(save_file, tensors),
            CONFIG: lambda path: path.write_text(json.dumps(config | {"metadata": metadata}, indent=1)),
        },
    )
