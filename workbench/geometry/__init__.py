"""The shape of clouds of activations: how much of them a label explains, how far classes collapse, what is parallel.

``measures.py`` and ``erasure.py``, which removes what tells classes apart, are pure functions of tensors. ``toys/``
trains small networks on data whose truth is known, to see what such measures do and do not say of a network.
"""

from workbench.geometry.erasure import erase, mean_directions, random_directions
from workbench.geometry.measures import collapse, linear_origin, variance_explained

__all__ = ["collapse", "erase", "linear_origin", "mean_directions", "random_directions", "variance_explained"]
