"""Where a feature is active beside where a label holds."""

import random

import numpy as np
import torch
from torch import Tensor

from workbench.activations import ActivationStore, Rows
from workbench.dictionaries.inputs import pick
from workbench.features.encoding import encoded
from workbench.features.feature import Feature
from workbench.features.scoring import Score, beside, mean

DOCUMENTS = 40
"""Documents of either kind that are looked at, at most."""


@torch.no_grad()
def localise(feature: Feature, label: str, *, seed: int = 0) -> Score:
    """Return how well the tokens on which a feature is active cover the spans of a label.

    That is the intersection over union of the two sets of tokens in a document, on average over documents, drawn at
    random, in which the label holds or the feature is active: missing a span counts against it, and so does being
    active where there is none. (Zhang et al. 2024, arXiv 2411.14982, do so with the segments of pictures.) The control
    ``shuffled`` takes the spans of another document, ``random`` as many tokens of the document, drawn at random.

    Args:
        feature: Of a set with its dictionary and store; the store carries labels.
        label: A value, "topic=sea", or a label, "topic", which holds where any of its values does.
        seed: Of what is drawn.
    """
    features = feature.features
    dictionary, store = features.sources
    if feature.dead:
        raise ValueError(f"Feature {feature.number} is active nowhere, so there is nothing to compare with {label!r}.")
    parts = torch.arange(len(store)).split(1 << 20)
    labelled = sorted({doc for part in parts for doc in _labelled(store, label, part)})
    if not labelled:
        raise ValueError(f"{label!r} holds on no row of this store; choose a label that does.")
    draw = random.Random(seed)
    active = sorted({one.doc for one in feature.sample})
    chosen = sorted({doc for docs in (labelled, active) for doc in draw.sample(docs, min(DOCUMENTS, len(docs)))})
    wanted = torch.tensor(chosen)
    index = torch.cat([part[torch.isin(store.rows(part, ()).doc, wanted)] for part in parts])
    rows = store.rows(index, features.sites_in)
    codes = encoded(dictionary, pick(rows.acts, features.sites_in))
    mask = ((codes.values > 0) & (codes.indices == feature.number)).any(1)
    sizes = torch.bincount(torch.searchsorted(wanted, rows.doc)).tolist()
    masks, spans = ([one.numpy() for one in of.split(sizes)] for of in (mask, _holds(rows, label)))
    others = [np.resize(one, len(mask)) for one, mask in zip([*spans[1:], *spans[:1]], masks, strict=True)]
    dealt = [np.array(draw.sample(one.tolist(), len(one))) for one in spans]
    return beside(*(mean(np.array(list(map(_iou, masks, truth)))) for truth in (spans, others, dealt)))


def _labelled(store: ActivationStore, label: str, part: Tensor) -> list[int]:
    """Return the documents of some rows in which a label holds."""
    rows = store.rows(part, ())
    return rows.doc[_holds(rows, label)].unique().tolist()


def _holds(rows: Rows, label: str) -> Tensor:
    """Return where a label, or a value of one, holds."""
    name, _, value = label.partition("=")
    if name not in rows.names:
        raise ValueError(f"The store has no label {name!r}; its labels are {', '.join(rows.names) or 'none'}.")
    if not value:
        return rows.labels[name] > 0
    if value not in rows.names[name][1:]:
        raise ValueError(f"The label {name!r} has no value {value!r}; it has {', '.join(rows.names[name][1:])}.")
    return rows.labels[name] == rows.names[name].index(value)


def _iou(mask: np.ndarray, span: np.ndarray) -> float:
    return float((mask & span).sum() / max((mask | span).sum(), 1))
