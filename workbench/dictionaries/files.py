"""A JSON manifest and the safetensors file it names, written so that a reader meets the old pair or the new.

The tensors go to a file named after their hash; they count once the manifest that names them has replaced the
old one, which is a single rename. Whatever stops a write before that leaves the previous state readable.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

FORMAT = 1


def write(directory: Path, name: str, manifest: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write ``name.json`` and its tensors into ``directory`` in place of an earlier pair."""
    path = directory / f"{name}.json"
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"'{directory}' is a file, which is left as it is; give a directory")
    try:
        json.dumps(manifest, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"'{path}' can tell only what JSON can hold, but: {error}; nothing is written. Put numbers and strings "
            "into options and provenance, float(…) of a tensor."
        ) from None
    part = directory / f".{name}.part"
    try:
        with explained(path):
            directory.mkdir(parents=True, exist_ok=True)
            part.touch()
            mode = part.stat().st_mode
            save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, part)
            part.chmod(mode)  # safetensors makes files that only their owner can read
            digest = _digest(part)
            weights = directory / f"{name}-{digest[:12]}.safetensors"
            _settle(part, weights)
            entry = {"format": FORMAT, **manifest, "tensors": weights.name, "sha256": digest}
            part.write_text(json.dumps(entry, indent=1))
            _settle(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    for old in directory.glob(f"{name}-{'[0-9a-f]' * 12}.safetensors"):
        if old != weights:
            old.unlink(missing_ok=True)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say of a write to ``path`` that fails what failed, and what is left."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        told = re.search(r"os error (\d+)", str(error))  # all that safetensors says of a full disk
        number = error.errno if isinstance(error, OSError) else told and int(told[1])
        if number is None:
            raise
        left = "what was there before stays readable" if path.exists() else "nothing was there before"
        raise OSError(
            number, f"'{path}' could not be written ({os.strerror(number)}); {left}. Mend that, or save elsewhere."
        ) from error


def read(directory: Path, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the manifest ``name.json`` of ``directory`` and the tensors it names."""
    told, weights = manifest(directory, name)
    if _digest(weights) != told["sha256"]:
        raise ValueError(
            f"'{weights}' is truncated, corrupt or swapped: it is not what '{name}.json' describes. "
            "Copy both files again, or write them again."
        )
    return told, load_file(weights)


def manifest(directory: Path, name: str) -> tuple[dict[str, Any], Path]:
    """Return the manifest ``name.json`` of ``directory`` and the file of the tensors it names, which is not read."""
    path = directory / f"{name}.json"
    try:
        told = json.loads(path.read_text())
        version, weights, _ = told["format"], directory / told["tensors"], told["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"'{path}' is not a manifest of workbench ({error!r}); copy it again, or begin anew in another directory."
        ) from None
    if version != FORMAT:
        raise ValueError(f"'{path}' has format {version!r}, this workbench reads {FORMAT}; update workbench.")
    if not weights.is_file():
        raise ValueError(f"'{path}' names '{weights.name}', which is not beside it; copy both files.")
    return told, weights


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _settle(part: Path, path: Path) -> None:
    """Rename, once the content has reached the disk: a power cut must not leave a name without content."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
