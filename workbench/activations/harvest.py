"""Pieces to columns of rows, one window of documents at a time.

A window is as many documents as fill a shard. Within it the pieces are sorted by length, so that little padding is
computed, and each row is written to its place in the order of the source. Windows depend on the source and the
settings alone, so that a harvest that goes on makes the same ones.
"""

import ctypes
import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from workbench.activations.shards import FileShard, Manifest, MemoryShard, Part, Shard
from workbench.activations.sources import Piece, Source, pieces_of
from workbench.models import Site, TransformerBridge, record

Progress = Callable[[int, int], object]
"""Called after each forward with the documents that are finished and the rows that are done."""

DTYPES = {name: getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64")}


def harvest(
    model: TransformerBridge,
    source: Source,
    manifest: Manifest,
    directory: Path | None,
    progress: Progress | None,
) -> tuple[Manifest, list[Shard]]:
    """Return the manifest and the shards of a whole harvest, of which ``manifest`` may name the first ones."""
    done = manifest.parts
    shards: list[Shard] = [] if directory is None else [FileShard(directory / part.file, part.rows) for part in done]
    bos = None if manifest.settings["keep_bos"] or model.tokenizer is None else model.tokenizer.bos_token_id
    digest, number = hashlib.sha256(), -1
    try:
        # One window is written while the next is computed; leaving the block waits for the writer.
        with ThreadPoolExecutor(max_workers=1) as writer:
            written: Future[FileShard] | None = None
            for number, window in enumerate(_windows(pieces_of(model, source), manifest.settings["shard_rows"], bos)):
                for piece in window:
                    digest.update(piece.tokens.to(torch.int32).numpy().tobytes() + b"|")
                so_far = digest.hexdigest()[:16]
                if number < len(done):
                    if done[number].source != so_far:
                        raise ValueError(_other_source(directory))
                    continue
                columns = _columns(model, window, manifest, bos, progress)
                part = Part(f"rows-{number:05d}.safetensors", len(columns["token"]), _finished(window), so_far)
                manifest = replace(manifest, parts=(*manifest.parts, part))
                if directory is None:
                    shards.append(MemoryShard(columns))
                    continue
                if written is not None:
                    shards.append(written.result())
                    _trim()
                written = writer.submit(_write, directory, columns, manifest)
                del columns  # the writer's now, so that it can be freed when written
            if written is not None:
                shards.append(written.result())
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"The harvest was interrupted. {_kept(directory)}") from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(error.errno, f"The disk is full. {_kept(directory)}") from error
    if number + 1 < len(done):
        raise ValueError(_other_source(directory))
    if manifest.rows == 0:
        raise ValueError("The source is empty: it holds no token besides beginnings of text and padding.")
    manifest = replace(manifest, complete=True)
    if directory is not None:
        manifest.write(directory)
    return manifest, shards


def _write(directory: Path, columns: dict[str, Tensor], manifest: Manifest) -> FileShard:
    shard = FileShard.write(directory / manifest.parts[-1].file, columns)
    manifest.write(directory)
    return shard


def _trim() -> None:
    # Forwards of many shapes leave the C heap full of holes, which a long harvest would see as slow growth.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _kept(directory: Path | None) -> str:
    if directory is None:
        return "Nothing is kept of a harvest in memory; give directory= to keep what is done."
    kept = Manifest.read(directory)
    rows, documents = (kept.rows, kept.documents) if kept is not None else (0, 0)
    return (
        f"{rows} rows of {documents} documents are safe in {str(directory)!r}, where ActivationStore.open reads them; "
        "the same call of ActivationStore.collect goes on from there."
    )


def _other_source(directory: Path | None) -> str:
    return (
        f"{str(directory)!r} was harvested from other documents than these; "
        "pass the source that it was begun with, or another directory."
    )


def _windows(pieces: Iterator[Piece], rows: int, bos: int | None) -> Iterator[list[Piece]]:
    window, held = [], 0
    for piece in pieces:
        window.append(piece)
        held += len(piece.tokens) if bos is None else int((piece.tokens != bos).sum())
        if held >= rows:
            yield window
            window, held = [], 0
    if held:
        yield window


def _finished(window: Sequence[Piece]) -> int:
    """Return how many documents of the source are finished with ``window``."""
    return window[-1].doc + window[-1].last


def _columns(
    model: TransformerBridge,
    window: Sequence[Piece],
    manifest: Manifest,
    bos: int | None,
    progress: Progress | None,
) -> dict[str, Tensor]:
    """Return the columns of one window: every site, the token, its position, document and labels."""
    tokens = torch.cat([piece.tokens for piece in window]).long()
    lengths = torch.tensor([len(piece.tokens) for piece in window])
    docs = torch.tensor([piece.doc for piece in window])
    begins = lengths.cumsum(0) - lengths
    kept = tokens != bos if bos is not None else torch.ones_like(tokens, dtype=torch.bool)
    row_of = kept.cumsum(0) - 1  # token of the window → its row
    columns = {
        "token": tokens,
        "pos": torch.arange(len(tokens)) - begins.repeat_interleave(lengths),
        "doc": docs.repeat_interleave(lengths),
        **{f"label.{name}": torch.cat([piece.labels[name] for piece in window]) for name in manifest.labels},
    }
    columns = {name: column[kept].to(torch.int32) for name, column in columns.items()}
    dtype = DTYPES[manifest.dtype]
    for name, width in manifest.sites.items():
        columns[name] = torch.empty(int(kept.sum()), width, dtype=dtype)

    sites = [Site.parse(name) for name in manifest.sites]
    finished, rows, waiting = _finished(window), manifest.rows, lengths > 0
    for batch in _batches(lengths, manifest.settings["batch_tokens"]):
        pos = torch.arange(int(lengths[batch].max()))
        real = pos < lengths[batch][:, None]
        which = torch.where(real, begins[batch][:, None] + pos, 0)  # token of the window
        wanted = real & kept[which]
        here = row_of[which[wanted]]
        # Zero pads on the right, where nothing that is kept can see it.
        acts = record(model, torch.where(real, tokens[which], 0), sites)
        for site, values in acts.items():
            values = values.flatten(2)[wanted.to(values.device)]
            stored = values.to("cpu", dtype)
            if not bool(stored.isfinite().all()):
                raise ValueError(_not_finite(site, values, stored, columns["doc"][here], columns["pos"][here]))
            columns[str(site)][here] = stored
        rows += len(here)
        waiting[batch] = False
        if progress is not None:
            open_ones = docs[waiting & (docs < finished)].unique()
            progress(finished - len(open_ones), rows)
    return columns


def _batches(lengths: Tensor, tokens: int) -> Iterator[Tensor]:
    """Yield the numbers of pieces that share a forward, short with short."""
    order = lengths.argsort(stable=True)
    order = order[lengths[order] > 0]
    start = 0
    for end, length in enumerate(lengths[order].tolist()):
        if end > start and length * (end - start + 1) > tokens:
            yield order[start:end]
            start = end
    if start < len(order):
        yield order[start:]


def _not_finite(site: Site, values: Tensor, stored: Tensor, doc: Tensor, pos: Tensor) -> str:
    first = int((~stored.isfinite()).any(1).nonzero()[0])
    value = values[first][~stored[first].isfinite().to(values.device)][0].item()
    where = f"The activation at {site} is {value:g} in document {int(doc[first])} at position {int(pos[first])}"
    if bool(values[first].isfinite().all()):
        return f"{where}, which does not fit {stored.dtype}; store it as torch.float32."
    return f"{where}; leave that document out, or load the model in float32 if it is in half precision."
