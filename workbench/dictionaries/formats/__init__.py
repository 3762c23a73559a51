"""Dictionaries on disk and on the hub, ours and those of other packages, through one door.

=======================  ===========================  =========================================================
``saelens``              ``sae_weights.safetensors``  standard, topk, gated, jumprelu, (jumprelu_)transcoder
``sparsify``             ``sae.safetensors``          topk, as autoencoder or transcoder
``dictionary_learning``  ``ae.pt``                    AutoEncoder(TopK), Gated, JumpRelu, BatchTopK, Matryoshka
``gemma_scope``          ``params.*``                 Gemma Scope 1 and 2; read only
``weights``              ..                           names and layout of arrays
``hub``                  ..                           a folder of the Hugging Face hub
=======================  ===========================  =========================================================

What is read encodes and decodes as it did where it comes from. So the rows of ``W_dec`` keep their lengths; where these
are not 1, training refuses it, since a step would make them so. Its ``provenance`` holds the format's name and the
config. What was done to the weights of its model before it was trained, as a config may say (folding norms, centring
what is written), is not undone here.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from workbench.dictionaries import files, storage
from workbench.dictionaries.dictionary import Dictionary
from workbench.dictionaries.formats import dictionary_learning, gemma_scope, hub, saelens, sparsify

READERS: dict[str, Callable[[Path], Dictionary]] = {
    f"{storage.NAME}.json": storage.read,
    saelens.WEIGHTS: saelens.read,
    sparsify.WEIGHTS: sparsify.read,
    dictionary_learning.WEIGHTS: dictionary_learning.read,
    gemma_scope.FIRST: gemma_scope.read_first,
    gemma_scope.SECOND: gemma_scope.read_second,
}
"""The file by which a format is known, and its reader."""

BESIDE = (f"{storage.NAME}-*.safetensors", saelens.CONFIG, dictionary_learning.CONFIG)
"""The files beside those."""

DEFAULT = "tiny/2.resid_post"
"""The dictionary that ``"tiny"`` is short for."""

WRITERS = {"saelens": saelens.write, "sparsify": sparsify.write, "dictionary_learning": dictionary_learning.write}


def load_dictionary(name_or_path: str | Path = "tiny") -> Dictionary:
    """Return a dictionary in float32 whose parameters take no gradient.

    Args:
        name_or_path: A shipped one, ``"tiny/2.resid_post"`` (``"tiny"`` for short) or ``"tiny/3.transcoder"``; a
            directory of workbench, SAELens, sparsify, dictionary_learning or Gemma Scope; or such a folder on the
            Hugging Face hub, ``"owner/repository/folder"``, which is downloaded once. A ``Path`` is a directory, and
            so is what begins with ``./``.
    """
    if not isinstance(name_or_path, str | Path):
        raise TypeError(f"load_dictionary takes a name or a path, got {type(name_or_path).__name__}.")
    directory = Path(name_or_path).expanduser()
    if isinstance(name_or_path, str):
        shipped = storage.shipped()
        name = DEFAULT if name_or_path == "tiny" else name_or_path
        if name in shipped:
            directory = shipped[name]
        elif name.split("/")[0] in {known.split("/")[0] for known in shipped}:
            raise ValueError(
                f"{name!r} is not among the shipped dictionaries, {', '.join(shipped)}; a directory of that name is "
                f"'./{name}'."
            )
        elif "/" in name_or_path and not name_or_path.startswith((".", "/", "~")) and not directory.exists():
            directory = hub.downloaded(name_or_path, READERS, BESIDE)
    for mark, read in READERS.items():
        if (directory / mark).is_file():
            try:
                return read(directory)
            except (KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"'{directory / mark}' and the config beside it do not describe a dictionary ({error!r}); copy or "
                    "download both again."
                ) from None
    if (directory / "checkpoint.json").is_file():
        raise ValueError(
            f"'{directory}' holds the checkpoint of a training: call train with the same arguments to go on with it, "
            "then save(dictionary, DIRECTORY), and load that."
        )
    none = f"holds none of {', '.join(READERS)}" if directory.is_dir() else "is not a directory"
    raise ValueError(
        f"'{directory}' {none}; give \"tiny\", a directory of workbench, SAELens, sparsify, dictionary_learning or "
        "Gemma Scope, or owner/repository/folder on the hub."
    )


def export(
    dictionary: Dictionary, directory: str | Path, format: Literal["saelens", "sparsify", "dictionary_learning"]
) -> None:
    """Write ``dictionary`` into a new directory as another package writes its own, in float32.

    What that package loads has the same codes and reconstructions; what it cannot compute is refused. Sites and
    provenance go along, and ``load_dictionary`` brings them back.
    """
    if format not in WRITERS:
        raise ValueError(f"format must be one of {', '.join(WRITERS)}, got {format!r}; for our own, call save.")
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(f"'{directory}' already holds something, which is left as it is; give a new directory.")
    with files.explained(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".") as folder:
            part = Path(folder) / "part"
            part.mkdir()
            WRITERS[format](dictionary, part)
            for file in part.iterdir():  # safetensors makes files that only their owner can read
                file.chmod(part.stat().st_mode & 0o666)
            if directory.exists():
                directory.rmdir()
            part.rename(directory)
