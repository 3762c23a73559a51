"""dictionary_learning: a state in ``ae.pt`` and ``config.json``.

The state is a pickle: it is read with ``weights_only=True``, which runs nothing that it brings. All but
JumpReluAutoEncoder subtract the decoder's bias from the input. A TopK is read as one, without its threshold, as its
own encoder does by default; a BatchTopK with it.
"""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.dictionaries.batchtopk import BatchTopK
from workbench.dictionaries.dictionary import Dictionary
from workbench.dictionaries.featurechoice import FeatureChoice
from workbench.dictionaries.formats import weights
from workbench.dictionaries.gated import Gated
from workbench.dictionaries.jumprelu import JumpReLU
from workbench.dictionaries.matryoshka import Matryoshka
from workbench.dictionaries.relu import ReLU
from workbench.dictionaries.topk import TopK
from workbench.models import Site

CONFIG, WEIGHTS = "config.json", "ae.pt"

LINEAR = {"encoder.weight": "W_enc", "encoder.bias": "b_enc", "decoder.weight": "W_dec.T"}
PLAIN = {"W_enc": "W_enc.T", "b_enc": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec", "threshold": "threshold"}
GATED = {
    "encoder.weight": "W_enc",
    "gate_bias": "b_enc",
    "mag_bias": "b_mag",
    "r_mag": "r_mag",
    "decoder.weight": "W_dec.T",
    "decoder_bias": "b_dec",
}

READ: dict[str, tuple[Callable[..., Dictionary], weights.Names]] = {
    "AutoEncoder": (ReLU, LINEAR | {"bias": "b_dec"}),
    "AutoEncoderTopK": (TopK, LINEAR | {"b_dec": "b_dec"}),
    "BatchTopKSAE": (BatchTopK, LINEAR | {"b_dec": "b_dec", "threshold": "threshold"}),
    "MatryoshkaBatchTopKSAE": (Matryoshka, PLAIN),
    "JumpReluAutoEncoder": (partial(JumpReLU, l0=None), PLAIN),
    "GatedAutoEncoder": (Gated, GATED),
}
"""Its classes, and ours that compute the same."""

WRITTEN = {
    ReLU: "AutoEncoder",
    TopK: "AutoEncoderTopK",
    BatchTopK: "BatchTopKSAE",
    Matryoshka: "MatryoshkaBatchTopKSAE",
    JumpReLU: "JumpReluAutoEncoder",
    FeatureChoice: "JumpReluAutoEncoder",
    Gated: "GatedAutoEncoder",
}


def read(directory: Path) -> Dictionary:
    """Return the dictionary that dictionary_learning wrote."""
    path = directory / CONFIG
    config, tensors = weights.json_of(path), _state(directory / WEIGHTS)
    trainer = config["trainer"]
    kind = trainer["dict_class"]
    if kind not in READ:
        raise ValueError(
            f"'{path}' is of class {kind!r}; of dictionary_learning's, this workbench reads {', '.join(READ)}."
        )
    told: dict[str, Any] = {
        "d_in": trainer["activation_dim"],
        "n_features": trainer["dict_size"],
        "subtracts": kind != "JumpReluAutoEncoder",
    }
    if "k" in tensors:
        told["k"] = int(tensors.pop("k"))
        if told["k"] != trainer.get("k", told["k"]):
            raise ValueError(
                f"'{path}' says k={trainer['k']}, but '{WEIGHTS}' {told['k']}; copy or download both again."
            )
    if "group_sizes" in tensors:
        told["prefixes"] = tensors.pop("group_sizes").cumsum(0).tolist()
    if kind == "AutoEncoderTopK":
        tensors.pop("threshold", None)
    elif (tensors.get("threshold", torch.zeros(())) < 0).any() and told["subtracts"]:
        raise ValueError(
            f"'{directory / WEIGHTS}' holds a threshold that was never set, which training does after its first "
            "thousand steps: alone, an activation would have all its features. Train on, and save it again."
        )
    found = re.fullmatch(r"resid_post_layer_(\d+)", str(trainer.get("submodule_name")))
    told |= weights.origin(config, "dictionary_learning", (Site(int(found[1])),) if found else ())
    built, names = READ[kind]
    return weights.assembled(directory / WEIGHTS, built, names, tensors, told)


def _state(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a spoilt pickle raises is of a dozen types
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"'{path}' is truncated, corrupt, or holds more than tensors, which is not run ({reason[0][:200]}); copy "
            "or download it again."
        ) from None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"'{path}' holds no state of named tensors; give the ae.pt that dictionary_learning wrote.")
    return dict(state)


def write(dictionary: Dictionary, directory: Path) -> None:
    """Write ``dictionary`` for dictionary_learning; the one pickle of this package."""
    kind = WRITTEN.get(type(dictionary))
    if kind is None or not getattr(dictionary, "relu", True) or not dictionary.autoencodes:
        raise ValueError(f"dictionary_learning has no class that computes what {dictionary!r} does; save it as it is.")
    state = weights.disassembled(dictionary, READ[kind][1], subtracts=kind != "JumpReluAutoEncoder")
    trainer: dict[str, Any] = {
        "dict_class": kind,
        "activation_dim": dictionary.d_in,
        "dict_size": dictionary.n_features,
    }
    if isinstance(dictionary, TopK | BatchTopK | Matryoshka):
        trainer["k"] = dictionary.k
        state["k"] = torch.tensor(dictionary.k, dtype=torch.int32)
    if isinstance(dictionary, TopK):
        state["threshold"] = torch.tensor(-1.0)  # which means that there is none
    if isinstance(dictionary, Matryoshka):
        state["group_sizes"] = torch.tensor(dictionary.prefixes).diff(prepend=torch.zeros(1, dtype=torch.long))
    kept = weights.known(dictionary, "dictionary_learning")
    config = kept | {"trainer": kept.get("trainer", {}) | trainer, "workbench": weights.note(dictionary)}
    weights.place(
        directory,
        {
            WEIGHTS: partial(torch.save, state),
            CONFIG: lambda path: path.write_text(json.dumps({"buffer": {}} | config, indent=1)),
        },
    )
