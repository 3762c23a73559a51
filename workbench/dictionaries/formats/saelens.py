"""SAELens, version 6 and the plain cases of earlier ones: ``cfg.json`` and ``sae_weights.safetensors``.

Where a topk was trained with ``rescale_acts_by_decoder_norm``, its codes are lengths along rows of norm one, which
ours then have. What has a threshold for all features or for each is written as jumprelu and comes back as
``JumpReLU``. Not exchanged are matching_pursuit, which goes on for one more step where ours stops, TopK with negative
codes, which SAELens rectifies, and transcoders that are TopK or Gated.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from workbench.dictionaries.dictionary import Dictionary
from workbench.dictionaries.formats import weights
from workbench.dictionaries.storage import ARCHITECTURES

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"

VERSION = "6.0.0"
"""The first version of the layout that is written; later ones read it."""

BOTH = {"W_enc": "W_enc.T", "W_dec": "W_dec", "b_dec": "b_dec"}
LINEAR = BOTH | {"b_enc": "b_enc"}
JUMP = LINEAR | {"threshold": "threshold"}
NAMES = {
    "standard": ("ReLU", LINEAR),
    "topk": ("TopK", LINEAR),
    "gated": ("Gated", BOTH | {"b_gate": "b_enc", "b_mag": "b_mag", "r_mag": "r_mag"}),
    "jumprelu": ("JumpReLU", JUMP),
    "transcoder": ("ReLU", LINEAR),
    "skip_transcoder": ("ReLU", LINEAR | {"W_skip": weights.SKIP}),
    "jumprelu_transcoder": ("JumpReLU", JUMP),
    "jumprelu_skip_transcoder": ("JumpReLU", JUMP | {"W_skip": weights.SKIP}),
}
"""SAELens's architectures, and ours that compute the same."""

WRITTEN = {"ReLU": "standard", "TopK": "topk", "Gated": "gated"} | dict.fromkeys(
    ("JumpReLU", "BatchTopK", "Matryoshka", "FeatureChoice"), "jumprelu"
)


def read(directory: Path) -> Dictionary:
    """Return the dictionary that SAELens wrote."""
    path = directory / CONFIG
    config = _current(weights.config_of(path), path)
    architecture, metadata = str(config["architecture"]), config["metadata"]
    if architecture not in NAMES:
        raise ValueError(
            f"'{path}' is of architecture {architecture!r}; of SAELens's, this workbench reads {', '.join(NAMES)}."
        )
    if (normalised := config.get("normalize_activations")) not in (None, "none"):
        raise ValueError(
            f"'{path}' has normalize_activations={normalised!r}, by numbers that are not in its files; fold that in "
            "with SAELens, and save it again."
        )
    (kind, names), transcodes = NAMES[architecture], "transcoder" in architecture
    tensors = weights.safetensors_of(directory / WEIGHTS)
    if "scaling_factor" in tensors and (tensors["scaling_factor"] == 1).all():
        del tensors["scaling_factor"]  # early versions wrote one even where it did nothing
    told: dict[str, Any] = {"d_in": config["d_in"], "n_features": config["d_sae"], "transcodes": transcodes}
    told["subtracts"] = not transcodes and config.get("apply_b_dec_to_input", True)
    if transcodes:
        told["d_out"] = config["d_out"]
    if architecture == "topk":
        told["k"] = config["k"]
        if config.get("rescale_acts_by_decoder_norm"):
            lengths = tensors["W_dec"].norm(dim=1)
            tensors |= {key: tensors[key] * lengths for key in ("W_enc", "b_enc")}
            tensors["W_dec"] = tensors["W_dec"] / lengths[:, None]
    if kind == "JumpReLU":
        told["l0"] = None
    sites_in = weights.sites_of(metadata.get("hook_name"), metadata.get("hook_head_index"))
    sites_out = weights.sites_of(metadata.get("hook_name_out")) if transcodes else None
    told |= weights.origin(metadata, "saelens", sites_in, sites_out)
    return weights.assembled(directory / WEIGHTS, ARCHITECTURES[kind], names, tensors, told)


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
    options, transcodes = dictionary.options, not dictionary.autoencodes
    name = WRITTEN.get(type(dictionary).__name__, "")
    if transcodes:
        skip = "" if getattr(dictionary, weights.SKIP, None) is None else "skip_"
        name = {"standard": f"{skip}transcoder", "jumprelu": f"jumprelu_{skip}transcoder"}.get(name, "")
    if name not in NAMES or not options.get("relu", True):
        raise ValueError(f"SAELens has no architecture that computes what {dictionary!r} does; save it as it is.")
    # As the file had it that this was read from, so that nothing is rounded; otherwise all is folded in.
    subtracts = not transcodes and dictionary.centre_in.equal(dictionary.folded().b_dec)
    tensors = weights.disassembled(dictionary, NAMES[name][1], subtracts=subtracts)
    if "threshold" in tensors:
        tensors["threshold"] = tensors["threshold"].expand(dictionary.n_features).contiguous()
    metadata: dict[str, Any] = {"sae_lens_version": VERSION}
    for site in dictionary.sites_in:
        metadata |= {"hook_name": site.hook, "hook_head_index": site.head}
    for site in dictionary.sites_out if transcodes else ():
        metadata["hook_name_out"] = site.hook
    heads = any(site.stream == "z" and site.head is None for site in dictionary.sites_in)
    config = {"architecture": name, "d_in": dictionary.d_in, "d_sae": dictionary.n_features}
    config |= {"k": options["k"]} if name == "topk" else {}
    config |= {"d_out": dictionary.d_out} if transcodes else {}
    config |= {"dtype": "float32", "device": "cpu", "apply_b_dec_to_input": subtracts, "normalize_activations": "none"}
    config["reshape_activations"] = "hook_z" if heads else "none"  # SAELens flattens the heads, as our stores do
    config["metadata"] = weights.noted(dictionary, "saelens", metadata)
    save_file(tensors, directory / WEIGHTS)
    (directory / CONFIG).write_text(json.dumps(config, indent=1))
