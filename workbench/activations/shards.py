"""Where rows lie: columns of one window of documents, in memory or in a file, and the manifest of the files.

The manifest is the truth: a file that it does not name does not exist. Files and manifest are written beside their
place, forced to the disk and then renamed, so that whatever stops the process leaves the state before or after.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT = "workbench activations 1"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Part:
    """What the manifest says of one shard."""

    file: str
    rows: int
    documents: int
    """How many documents of the source are done with this shard."""

    source: str
    """Hash of all tokens of the source up to here."""


@dataclass(frozen=True)
class Manifest:
    """What a store holds, and how it was made."""

    model: str
    """Fingerprint of the model: weights, configuration and tokenizer."""

    model_name: str
    sites: Mapping[str, int]
    """Site → width of its rows."""

    dtype: str
    settings: Mapping[str, Any]
    """How rows were chosen and cut into shards; a harvest goes on only under the same."""

    labels: Mapping[str, tuple[str, ...]]
    """Label → what its codes mean."""

    parts: tuple[Part, ...] = ()
    complete: bool = False
    format: str = FORMAT

    @property
    def rows(self) -> int:
        """Number of rows in all shards."""
        return sum(part.rows for part in self.parts)

    @property
    def documents(self) -> int:
        """Number of documents that are done."""
        return self.parts[-1].documents if self.parts else 0

    def plan(self) -> dict[str, Any]:
        """Return what must be the same for a harvest to go on."""
        return asdict(replace(self, model_name="", parts=(), complete=False))

    def write(self, directory: Path) -> None:
        """Put this manifest in ``directory``."""
        text = json.dumps(asdict(self), indent=1)
        write_atomically(directory / MANIFEST, lambda file: file.write_text(text, encoding="utf-8"))

    @staticmethod
    def read(directory: Path) -> "Manifest | None":
        """Return the manifest of ``directory``, None if it has none."""
        file = directory / MANIFEST
        if not file.is_file():
            return None
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(content["format"])
            content["parts"] = tuple(Part(**part) for part in content["parts"])
            content["labels"] = {name: tuple(names) for name, names in content["labels"].items()}
            return Manifest(**content)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{str(file)!r} is not a manifest of activations that this version reads ({error}); "
                "give the directory of a store, or an empty one to harvest into."
            ) from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` write a file so that it is either there in full or not at all."""
    beside = path.with_name(path.name + ".tmp")
    try:
        write(beside)
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    with contextlib.suppress(PermissionError):  # Windows opens no directories, and needs this less
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class MemoryShard:
    """Columns of rows in memory."""

    def __init__(self, columns: Mapping[str, Tensor]) -> None:
        self._columns = columns
        self.rows = len(columns["token"])

    def read(self, name: str, index: slice | Tensor) -> Tensor:
        """Return some rows of a column."""
        return self._columns[name][index]


class FileShard:
    """Columns of rows in a safetensors file, of which only what is asked for is read."""

    def __init__(self, path: Path, rows: int) -> None:
        self._path = path
        self.rows = rows

    @classmethod
    def write(cls, path: Path, columns: Mapping[str, Tensor]) -> "FileShard":
        """Write ``columns`` to ``path``."""
        try:
            write_atomically(path, lambda file: save_file(dict(columns), file))
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))  # all it says of a full disk
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        return cls(path, len(columns["token"]))

    def check(self) -> None:
        """Say so if the file is not what the manifest promises."""
        try:
            with safe_open(self._path, framework="pt") as file:
                rows = file.get_slice("token").get_shape()[0]
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{str(self._path)!r} is missing, corrupt or truncated ({error}); "
                "copy the store again or harvest it anew into another directory."
            ) from error
        if rows != self.rows:
            raise ValueError(f"{str(self._path)!r} holds {rows} rows, but the manifest says {self.rows}.")

    def read(self, name: str, index: slice | Tensor) -> Tensor:
        """Return some rows of a column."""
        with safe_open(self._path, framework="pt") as file:
            column = file.get_slice(name)
            if isinstance(index, slice):
                return column[index]
            start, end = int(index.min()), int(index.max()) + 1
            # Runs of neighbours, as a shuffle asks for, are read one by one; scattered rows with all between them.
            breaks = (index.diff() != 1).nonzero()[:, 0] + 1
            if len(breaks) * 64 < end - start - len(index):
                runs = index.tensor_split(breaks)
                return torch.cat([column[int(run[0]) : int(run[-1]) + 1] for run in runs])
            return column[start:end][index - start]


Shard = MemoryShard | FileShard


def gather(shards: list[Shard], name: str, index: Tensor) -> Tensor:
    """Return the rows of a column by their numbers over all ``shards``, half precision as float32."""
    ends = torch.tensor([shard.rows for shard in shards]).cumsum(0)
    which = torch.searchsorted(ends, index, right=True)
    if len(index) and bool((which == which[0]).all()):
        first = int(which[0])
        rows = shards[first].read(name, index - (int(ends[first]) - shards[first].rows))
    else:
        none = shards[0].read(name, slice(0, 0))
        rows = none.new_empty(len(index), *none.shape[1:])
        for number in which.unique().tolist():
            here = which == number
            rows[here] = shards[number].read(name, index[here] - (int(ends[number]) - shards[number].rows))
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
