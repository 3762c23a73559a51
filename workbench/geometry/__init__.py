"""The shape of clouds of activations: how much of them a label explains, how far classes collapse, what is parallel.

``measures.py`` are pure functions of tensors. ``toys/`` trains small networks, in seconds and from seeds, on data
whose truth is known, to see what such measures do and do not say about what a network computes.
"""

from workbench.geometry.measures import (
    Collapse,
    LinearOrigin,
    VarianceExplained,
    collapse,
    linear_origin,
    variance_explained,
)

__all__ = [
    "Collapse",
    "LinearOrigin",
    "VarianceExplained",
    "collapse",
    "linear_origin",
    "variance_explained",
]
