"""EleutherAI's sparsify: ``cfg.json`` and ``sae.safetensors`` in a folder named after the module that is read.

Its one architecture of ours is TopK. An autoencoder subtracts ``b_dec`` from its input, a transcoder does not. Where a
model normalises what its MLPs write, the module ``mlp`` is another place than ``mlp_out``.
"""

import json
import re
from pathlib import Path

from safetensors.torch import save_file

from workbench.dictionaries.dictionary import Dictionary
from workbench.dictionaries.formats import weights
from workbench.dictionaries.topk import TopK
from workbench.models import Site

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"

NAMES = {"encoder.weight": "W_enc", "encoder.bias": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}


def read(directory: Path) -> Dictionary:
    """Return the dictionary that sparsify wrote."""
    config = weights.config_of(directory / CONFIG)
    activation = "signed" if config.get("signed") else config.get("activation", "topk")
    if activation != "topk":
        raise ValueError(
            f"'{directory / CONFIG}' has activation {activation!r}; of sparsify's, this workbench reads 'topk'."
        )
    d, transcodes = config["d_in"], config.get("transcode", False)
    n_features = config.get("num_latents") or d * config["expansion_factor"]
    told = {"d_in": d, "n_features": n_features, "k": config["k"]}
    told |= {"subtracts": not transcodes, "transcodes": transcodes}
    sites = [(), ()]
    if module := re.fullmatch(r"(?:\w+\.)*(?:layers|h)\.(\d+)(\.mlp)?", directory.name):
        streams = ("mlp_in", "mlp_out") if module[2] else ("resid_pre", "resid_post")
        sites = [(Site(int(module[1]), stream),) for stream in streams]
    told |= weights.origin(config, "sparsify", *(sites if transcodes else sites[1:]))
    names = NAMES | ({"W_skip": weights.SKIP} if config.get("skip_connection") else {})
    return weights.assembled(directory / WEIGHTS, TopK, names, weights.safetensors_of(directory / WEIGHTS), told)


def write(dictionary: Dictionary, directory: Path) -> None:
    """Write ``dictionary`` for sparsify."""
    if not isinstance(dictionary, TopK) or not dictionary.relu or dictionary.d_in != dictionary.d_out:
        raise ValueError(
            "sparsify has nothing but rectified TopK with as many outputs as inputs, and so nothing that computes what "
            f"{dictionary!r} does; save it as it is."
        )
    own = {"activation": "topk", "num_latents": dictionary.n_features, "k": dictionary.k, "d_in": dictionary.d_in}
    skips = getattr(dictionary, weights.SKIP, None) is not None
    own |= {"transcode": not dictionary.autoencodes, "skip_connection": skips}
    names = NAMES | ({"W_skip": weights.SKIP} if skips else {})
    save_file(weights.disassembled(dictionary, names, subtracts=dictionary.autoencodes), directory / WEIGHTS)
    (directory / CONFIG).write_text(json.dumps(weights.noted(dictionary, "sparsify", own), indent=1))
