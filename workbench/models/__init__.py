"""Load a model, read its activations, edit them, resume from them, generate.

The only room that knows TransformerLens; elsewhere there is a ``Site`` and a tensor. A model is a
``TransformerBridge`` of TransformerLens 4. Nothing here subclasses or wraps it, so a bridge the user already
has is as good as one that ``load_model`` made.

=================  ==================================================================================
``sites``          ``Site``: a place in the model as a value, and the hook behind it
``loading``        ``load_model``
``weights``        ``from_weights``: a model from plain tensors
``identity``       ``fingerprint``
``text``           ``tokenize``
``forward``        one forward: the checks on tokens, the lock
``hooks``          ``record`` reads, ``edited`` writes
``resuming``       ``resume`` runs on from a site
``generation``     ``generate`` streams tokens
=================  ==================================================================================

Axes: ``batch pos d_model`` for the residual stream and what is added to it, ``batch pos head d_head`` for
``z``, ``batch head query key`` for ``pattern``, ``batch pos 1`` for the scales of the norms. A site with a
head drops the head axis.
"""

from workbench.models.generation import GeneratedToken, generate
from workbench.models.hooks import Context, Edit, edited, record
from workbench.models.identity import fingerprint
from workbench.models.loading import load_model
from workbench.models.resuming import resume
from workbench.models.sites import Site, Stream, TransformerBridge
from workbench.models.text import tokenize
from workbench.models.weights import from_weights

__all__ = [
    "Context",
    "Edit",
    "GeneratedToken",
    "Site",
    "Stream",
    "TransformerBridge",
    "edited",
    "fingerprint",
    "from_weights",
    "generate",
    "load_model",
    "record",
    "resume",
    "tokenize",
]
