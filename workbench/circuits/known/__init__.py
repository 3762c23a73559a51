"""Hand-wired transformers whose circuits are known, to check methods that find circuits against the truth.

The circuits that people found in trained models are incomplete, and published lists of them disagree. Here the
weights are written down, and so the circuit is known (the idea of Tracr, Lindner et al. 2023, arXiv 2301.05062).

===========================  ========================================================================
``induction()``              A B … A → B: previous token, then induction
``copy()``                   one layer, one head: the word of the colour that is asked for
``gating()``                 a neuron that fires only on what two components found together
``indirect_object()``        duplicate token → S-inhibition → name mover
``flow()``                   three layers with a dictionary at every site: births, carriers, a turn, deaths
===========================  ========================================================================

Each is a ``Known``: an ordinary bridge without norms, all its prompts, its nodes and edges as data. Every model also
has heads that are as busy as the true ones and often do the same, but write where nothing reads. ``check`` asserts
what a ``Known`` claims on every prompt. Activations are small integers along each direction and attention is all or
nothing: effects are exact, and what has none has exactly none. Such attention passes no gradient to queries and keys;
methods that need one take ``sharpness=8``, with which the same circuits hold.
"""

from workbench.circuits.known.check import check
from workbench.circuits.known.flow import flow
from workbench.circuits.known.known import Edge, Event, Feature, Known, Node, Part
from workbench.circuits.known.tasks import copy, gating, indirect_object, induction

__all__ = [
    "Edge",
    "Event",
    "Feature",
    "Known",
    "Node",
    "Part",
    "check",
    "copy",
    "flow",
    "gating",
    "indirect_object",
    "induction",
]
