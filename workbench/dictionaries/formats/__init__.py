"""Dictionaries of other packages: read from their files, and written for their loaders.

=======================  ===========================  =========================================================
``saelens``              ``sae_weights.safetensors``  standard, topk, gated, jumprelu, (jumprelu_)transcoder
``sparsify``             ``sae.safetensors``          topk, as autoencoder or transcoder
``dictionary_learning``  ``ae.pt``                    AutoEncoder(TopK), Gated, JumpRelu, BatchTopK, Matryoshka
``gemma_scope``          ``params.*``                 Gemma Scope 1 and 2; read only
``weights``              ..                           what they share
``hub``                  ..                           the Hugging Face hub
=======================  ===========================  =========================================================

What is read encodes and decodes as it did where it comes from. So the rows of ``W_dec`` keep their lengths; where these
are not 1, training refuses it, since a step would make them so. Its ``provenance`` holds the format's name and the
config. What was done to the weights of its model before it was trained, as a config may say (folding norms, centring
what is written), is not undone here.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from workbench.dictionaries.dictionary import Dictionary
from workbench.dictionaries.formats import dictionary_learning, gemma_scope, saelens, sparsify

READERS: dict[str, Callable[[Path], Dictionary]] = {
    saelens.WEIGHTS: saelens.read,
    sparsify.WEIGHTS: sparsify.read,
    dictionary_learning.WEIGHTS: dictionary_learning.read,
    gemma_scope.FIRST: gemma_scope.read_first,
    gemma_scope.SECOND: gemma_scope.read_second,
}
"""The file by which a format is known, and its reader."""

CONFIGS = (saelens.CONFIG, dictionary_learning.CONFIG)

WRITERS = {
    "saelens": saelens.write,
    "sparsify": sparsify.write,
    "dictionary_learning": dictionary_learning.write,
}


def read(directory: Path) -> Dictionary | None:
    """Return the dictionary of another package that lies in ``directory``, or None if there is none."""
    for name, reader in READERS.items():
        if (directory / name).is_file():
            try:
                return reader(directory)
            except (KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"The config beside '{directory / name}' does not describe a dictionary ({error!r}); copy or "
                    "download it again."
                ) from None
    return None


def export(
    dictionary: Dictionary, directory: str | Path, format: Literal["saelens", "sparsify", "dictionary_learning"]
) -> None:
    """Write ``dictionary`` into ``directory`` as another package writes its own, in float32.

    What that package loads has the same codes and reconstructions; what it cannot compute is refused. Nothing is
    written in place of another file. Sites and provenance go along, and ``load_dictionary`` brings them back.
    """
    if format not in WRITERS:
        raise ValueError(f"format must be one of {', '.join(WRITERS)}, got {format!r}; for our own, call save.")
    WRITERS[format](dictionary, Path(directory))
