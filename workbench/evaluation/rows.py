"""Which rows a fit learns from, and which judge it."""

import torch
from jaxtyping import Bool
from torch import Generator, Tensor

LEAST = 8
"""Rows on either side, under which nothing is fitted or judged."""


def judges(rows: int, held_out: Bool[Tensor, " row"] | None, seed: int) -> Bool[Tensor, " row"]:
    """Return the rows that judge: those given, or a quarter of ``rows`` drawn at random.

    Rows of one document resemble each other, so that a document belongs on one side as a whole: who has documents
    says which rows are held out.
    """
    if held_out is None:
        held_out = torch.zeros(rows, dtype=torch.bool)
        held_out[torch.randperm(rows, generator=Generator().manual_seed(seed))[: rows // 4]] = True
    held_out = held_out.cpu()
    judged = int(held_out.sum())
    if len(held_out) != rows or min(judged, rows - judged) < LEAST:
        raise ValueError(
            f"held_out marks some of the {rows} rows, and leaves {LEAST} or more on either side; got "
            f"{len(held_out)} marks, of which {judged} are set."
        )
    return held_out
