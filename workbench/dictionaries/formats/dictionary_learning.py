"""dictionary_learning: a state in ``ae.pt`` and ``config.json``.

The state is a pickle: it is read with ``weights_only=True``, which runs nothing that it brings. All but
JumpReluAutoEncoder subtract the decoder's bias from the input. A TopK is read as one, without its threshold, as its
own encoder does by default; a BatchTopK with it.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.dictionaries.dictionary import Dictionary
from workbench.dictionaries.formats import weights
from workbench.dictionaries.storage import ARCHITECTURES
from workbench.models import Site

CONFIG, WEIGHTS = "config.json", "ae.pt"

BOTH = {"encoder.weight": "W_enc", "decoder.weight": "W_dec.T"}
TOPK = BOTH | {"encoder.bias": "b_enc", "b_dec": "b_dec"}
PLAIN = {"W_enc": "W_enc.T", "b_enc": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec", "threshold": "threshold"}
GATED = {"gate_bias": "b_enc", "mag_bias": "b_mag", "r_mag": "r_mag", "decoder_bias": "b_dec"}
NAMES = {
    "AutoEncoder": ("ReLU", BOTH | {"encoder.bias": "b_enc", "bias": "b_dec"}),
    "AutoEncoderTopK": ("TopK", TOPK),
    "BatchTopKSAE": ("BatchTopK", TOPK | {"threshold": "threshold"}),
    "MatryoshkaBatchTopKSAE": ("Matryoshka", PLAIN),
    "JumpReluAutoEncoder": ("JumpReLU", PLAIN),
    "GatedAutoEncoder": ("Gated", BOTH | GATED),
}
"""Its classes, and ours that compute the same."""

WRITTEN = {kind: name for name, (kind, _) in NAMES.items()} | {"FeatureChoice": "JumpReluAutoEncoder"}


def read(directory: Path) -> Dictionary:
    """Return the dictionary that dictionary_learning wrote."""
    config, tensors = weights.config_of(directory / CONFIG), weights.opened(directory / WEIGHTS, _state)
    trainer = config["trainer"]
    if (name := trainer["dict_class"]) not in NAMES:
        raise ValueError(
            f"'{directory / CONFIG}' is of class {name!r}; of dictionary_learning's, this workbench reads "
            f"{', '.join(NAMES)}."
        )
    kind, names = NAMES[name]
    told: dict[str, Any] = {"d_in": trainer["activation_dim"], "n_features": trainer["dict_size"]}
    told["subtracts"] = kind != "JumpReLU"
    if "k" in tensors:
        told["k"] = int(tensors.pop("k"))
    if "group_sizes" in tensors:
        told["prefixes"] = tensors.pop("group_sizes").cumsum(0).tolist()
    if kind == "JumpReLU":
        told["l0"] = None
    elif tensors.get("threshold", torch.zeros(())).lt(0).any() and kind != "TopK":
        raise ValueError(
            f"'{directory / WEIGHTS}' holds a threshold that was never set, which training does after its first "
            "thousand steps: alone, an activation would have all its features. Train on, and save it again."
        )
    if kind == "TopK":
        tensors.pop("threshold", None)
    found = re.fullmatch(r"resid_post_layer_(\d+)", str(trainer.get("submodule_name")))
    told |= weights.origin(config, "dictionary_learning", (Site(int(found[1])),) if found else ())
    return weights.assembled(directory / WEIGHTS, ARCHITECTURES[kind], names, tensors, told)


def _state(path: Path) -> dict[str, Tensor]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {key: tensor.detach() for key, tensor in state.items()}


def write(dictionary: Dictionary, directory: Path) -> None:
    """Write ``dictionary`` for dictionary_learning; the one pickle that workbench writes."""
    kind, options = type(dictionary).__name__, dictionary.options
    name = WRITTEN.get(kind)
    if name is None or not options.get("relu", True) or not dictionary.autoencodes:
        raise ValueError(f"dictionary_learning has no class that computes what {dictionary!r} does; save it as it is.")
    state = weights.disassembled(dictionary, NAMES[name][1], subtracts=name != "JumpReluAutoEncoder")
    trainer = {"dict_class": name, "activation_dim": dictionary.d_in, "dict_size": dictionary.n_features}
    if kind in ("TopK", "BatchTopK", "Matryoshka"):
        trainer["k"] = options["k"]
        state["k"] = torch.tensor(options["k"], dtype=torch.int32)
    if kind == "TopK":
        state["threshold"] = torch.tensor(-1.0)  # which means that there is none
    if kind == "Matryoshka":
        state["group_sizes"] = torch.tensor([0, *options["prefixes"]]).diff()
    kept = dictionary.provenance.get("config", {}).get("trainer", {})
    config = weights.noted(dictionary, "dictionary_learning", {"trainer": kept | trainer})
    torch.save(state, directory / WEIGHTS)
    (directory / CONFIG).write_text(json.dumps({"buffer": {}} | config, indent=1))
