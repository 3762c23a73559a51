"""Sparse dictionaries: activations as sums of few features, each with a direction. Pure torch.

Knows activations and their sites; knows no language model and no training loop.

=================  ==================================================================================
``codes``          ``Codes``: which features are active, and how strongly
``dictionary``     ``Dictionary``, what all architectures share, and the ``Loss`` they return
``linear``         ``Linear``, what architectures share whose encoder is one product; AuxK
``topk``           ``TopK``, and the k-sparse autoencoder
``sparse``         products with sparse codes and their gradients, at the cost of what is active
``gradients``      two gradients that differ from autograd's on purpose
``inputs``         from a batch to the tensors a dictionary takes
``splice``         a dictionary in a running model
``fidelity``       how much it keeps, and at what cost
``storage``        save and load; ``files``: a manifest and its tensors, atomically
=================  ==================================================================================

Axes: ``batch d_in`` (several sites: ``batch site d_in``), ``batch k`` for codes, ``n_features d_out`` for
directions.
"""

from workbench.dictionaries.codes import Codes
from workbench.dictionaries.dictionary import Dictionary, Loss
from workbench.dictionaries.fidelity import Fidelity, fidelity
from workbench.dictionaries.splice import splice
from workbench.dictionaries.storage import load_dictionary, save
from workbench.dictionaries.topk import TopK

__all__ = ["Codes", "Dictionary", "Fidelity", "Loss", "TopK", "fidelity", "load_dictionary", "save", "splice"]
