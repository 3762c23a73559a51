"""What activations can be harvested from, as pieces that fit the model's context."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.language import Documents
from workbench.models import TransformerBridge
from workbench.models.text import encode

Source = Documents | Tensor | Path | Iterable[Any]


@dataclass(frozen=True)
class Piece:
    """What one row of a forward holds: a document, or a part of one that is longer than the context."""

    doc: int
    """Number of the document in the source."""

    tokens: Tensor
    """Its tokens, [pos], without padding."""

    labels: Mapping[str, Tensor] = field(default_factory=dict)
    """Label codes beside the tokens."""

    last: bool = True
    """Whether its document ends with it."""


def label_names(source: Source) -> dict[str, tuple[str, ...]]:
    """Return what the label codes of ``source`` mean."""
    return {name: column.names for name, column in source.labels.items()} if isinstance(source, Documents) else {}


def pieces_of(model: TransformerBridge, source: Source) -> Iterator[Piece]:
    """Yield the pieces of ``source`` in order."""
    if isinstance(source, Documents):
        for doc, length in enumerate(source.lengths.tolist()):
            labels = {name: column.codes[doc, :length] for name, column in source.labels.items()}
            yield Piece(doc, source.tokens[doc, :length], labels)
    elif isinstance(source, Tensor):
        yield from _rows(model, source)
    elif isinstance(source, Path):
        if not source.is_file():
            raise ValueError(f"{str(source)!r} is not a file; a text file holds one document per line.")
        with source.open(encoding="utf-8") as lines:
            yield from _items(model, (line.rstrip("\n") for line in lines))
    elif isinstance(source, str):
        raise TypeError("A single text is not a corpus; pass [text], or Path(name) for a file of texts.")
    elif isinstance(source, Mapping):
        raise TypeError(f"This holds several data sets ({', '.join(map(str, source))}); pass one of them.")
    else:
        yield from _items(model, source)


def _rows(model: TransformerBridge, tokens: Tensor) -> Iterator[Piece]:
    if tokens.ndim != 2 or tokens.is_floating_point():
        raise ValueError(f"Tokens must be an integer [doc, pos] tensor, got {tokens.dtype} {tuple(tokens.shape)}.")
    for doc, row in enumerate(tokens.cpu()):
        yield Piece(doc, _unpadded(model, doc, row))


def _unpadded(model: TransformerBridge, doc: int, row: Tensor, *, alone: bool = False) -> Tensor:
    """Return the tokens of ``row`` before its padding; ``alone`` if no longer row gives it reason to be padded."""
    tokenizer = model.tokenizer
    if tokenizer is None or tokenizer.pad_token_id is None:
        return row
    padding = row == tokenizer.pad_token_id
    real = (~padding).nonzero()
    length = int(real[-1]) + 1 if len(real) else 0
    # Where the pad also begins or ends texts, one may stand anywhere, but two at the beginning are padding.
    shared = tokenizer.pad_token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id)
    if length and bool(padding[:2].all() if shared else padding[:length].any()):
        raise ValueError(
            f"Document {doc} of the source has padding (token {tokenizer.pad_token_id}) before a real token; padding "
            "must come last, so pad on the right, as tokenize does, or pass a list of tensors without padding."
        )
    return row if alone and shared else row[:length]


def _items(model: TransformerBridge, items: Iterable[Any]) -> Iterator[Piece]:
    for doc, item in enumerate(items):
        if isinstance(item, Mapping):  # a row of a Hugging Face data set
            if "text" not in item:
                raise ValueError(
                    f"The rows of this data set have {', '.join(map(str, item))}, but no 'text'; "
                    "rename a column, as in data.rename_column('story', 'text')."
                )
            item = item["text"]
        if isinstance(item, Tensor) and item.ndim == 1 and not item.is_floating_point():
            yield Piece(doc, _unpadded(model, doc, item.cpu(), alone=True))
        elif isinstance(item, str):
            yield from _pieces_of_text(model, doc, item)
        else:
            raise TypeError(
                f"Document {doc} of the source is {type(item).__name__}; a document is a text, an integer [pos] "
                "tensor of tokens or a row with a 'text'."
            )


def _pieces_of_text(model: TransformerBridge, doc: int, text: str) -> Iterator[Piece]:
    if not text.strip():
        return
    try:
        first, *rest = encode(model, text)
    except ValueError as error:
        raise ValueError(f"Document {doc} of the source: {error}") from error
    step = model.cfg.n_ctx - 1
    for start in range(0, len(rest), step):
        yield Piece(doc, torch.tensor([first, *rest[start : start + step]]), last=start + step >= len(rest))
