"""Documents: rows of tokens with a label of every kind beside every token."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.language.lexicon import BRACKETS
from workbench.language.splits import Split
from workbench.language.vocabulary import MARKS, PAD, SPECIAL, VOCABULARY

WORDS = tuple(VOCABULARY)


@dataclass(frozen=True)
class Column:
    """One kind of label, for every token of some documents."""

    codes: Int[Tensor, "doc pos"]
    """Index into ``names``; 0 where the label does not apply."""

    names: tuple[str, ...]
    """What the codes mean; ``names[0]`` is the empty string."""

    def __repr__(self) -> str:
        """Return the shape and the names."""
        return f"Column({tuple(self.codes.shape)}: {', '.join(self.names[1:])})"

    def values(self) -> list[list[str]]:
        """Return the label of every token in words, "" where none applies."""
        return [[self.names[code] for code in row] for row in self.codes.tolist()]

    def equals(self, name: str) -> Bool[Tensor, "doc pos"]:
        """Return where the label is ``name``."""
        if name not in self.names:
            raise ValueError(f"no token can carry the label {name!r}; this column has {', '.join(self.names[1:])}.")
        return self.codes == self.names.index(name)


@dataclass(frozen=True)
class Documents:
    """Some documents, one per row: BOS first, EOS last, then padding."""

    tokens: Int[Tensor, "doc pos"]
    lengths: Int[Tensor, " doc"]
    """Number of tokens of each document, BOS and EOS included."""

    labels: Mapping[str, Column]
    """Label columns by name; the special tokens carry none."""

    split: Split = "all"
    seeds: Int[Tensor, " doc"] | None = None
    """What each document was drawn from; None where a document was made otherwise."""

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.tokens)

    def __repr__(self) -> str:
        """Return how many there are, and the beginning of the first."""
        shown = shorten(self.text(), 60, placeholder=" …") if len(self) else ""
        return f"Documents({len(self)} of split {self.split!r}, up to {self.tokens.shape[1]} tokens: {shown!r})"

    def __getitem__(self, index: int | slice | Tensor) -> "Documents":
        """Return the chosen documents, trimmed to the longest of them; iterating gives one at a time."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"there are {len(self)} documents, counted from 0, got index {index}.")
            index = slice(index, index + 1 or None)
        lengths = self.lengths[index]
        width = int(lengths.max()) if len(lengths) else 0
        return replace(
            self,
            tokens=self.tokens[index, :width],
            lengths=lengths,
            labels={k: replace(c, codes=c.codes[index, :width]) for k, c in self.labels.items()},
            seeds=None if self.seeds is None else self.seeds[index],
        )

    @classmethod
    def cat(cls, parts: "Sequence[Documents]") -> "Documents":
        """Return the documents of all ``parts``, one after the other; of different splits they are of "all"."""
        width = max(part.tokens.shape[1] for part in parts)

        def padded(rows: Iterable[Tensor], value: int) -> Tensor:
            return torch.cat([F.pad(row, (0, width - row.shape[1]), value=value) for row in rows])

        split = parts[0].split if len({part.split for part in parts}) == 1 else None
        seeds = [part.seeds for part in parts if part.seeds is not None]
        return cls(
            tokens=padded((part.tokens for part in parts), PAD),
            lengths=torch.cat([part.lengths for part in parts]),
            labels={
                name: Column(padded((part.labels[name].codes for part in parts), 0), column.names)
                for name, column in parts[0].labels.items()
            },
            split=split or "all",
            seeds=torch.cat(seeds) if split and len(seeds) == len(parts) else None,  # they mean a split too
        )

    @property
    def mask(self) -> Bool[Tensor, "doc pos"]:
        """True at tokens, False at padding."""
        return torch.arange(self.tokens.shape[1]) < self.lengths[:, None]

    def parents(self, index: int) -> list[int]:
        """Return the position of each token's parent in the tree of a bracketed expression; -1 for what has none.

        The parent of an opening bracket is the bracket around it; of all else, the bracket that it stands in.
        """
        length = int(self.lengths[index])
        words = [WORDS[i] for i in self.tokens[index, :length].tolist()]
        found, depths = [], [int(depth or 0) for depth in self.labels["depth"].values()[index][:length]]
        last: dict[int, int] = {}  # depth → the last bracket opened there
        for at, (word, depth) in enumerate(zip(words, depths, strict=True)):
            opens = word in BRACKETS
            found.append(last.get(depth - opens, -1) if depth else -1)
            if opens:
                last[depth] = at
        return found

    def text(self, index: int = 0) -> str:
        """Return one document as plain English, without its special tokens; the first by default."""
        return join(WORDS[i] for i in self.tokens[index].tolist() if i >= len(SPECIAL))

    def to_frame(self) -> pd.DataFrame:
        """Return one row per token: document, position, token, and its labels."""
        doc, pos = self.mask.nonzero(as_tuple=True)
        columns: dict[str, Any] = {"doc": doc.numpy(), "pos": pos.numpy()}
        columns["token"] = [WORDS[i] for i in self.tokens[doc, pos].tolist()]
        for name, column in self.labels.items():
            columns[name] = pd.Categorical.from_codes(column.codes[doc, pos].numpy(), list(column.names))
        return pd.DataFrame(columns)


def join(words) -> str:
    """Write words as plain English: a space before each, none before a mark."""
    return "".join(word if word in MARKS else " " + word for word in words).lstrip()
