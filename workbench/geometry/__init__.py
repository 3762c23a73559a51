"""The shape of clouds of activations: how much of them a label explains, how far classes collapse, what is parallel.

``measures.py`` are pure functions of tensors. ``toys/`` trains small networks on data whose truth is known, to see
what such measures do and do not say of a network.
"""

from workbench.geometry.measures import collapse, linear_origin, variance_explained

__all__ = ["collapse", "linear_origin", "variance_explained"]
