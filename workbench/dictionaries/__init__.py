"""Sparse dictionaries: activations as sums of few features, each with a direction. Pure torch.

Knows activations and their sites; knows no language model and no training loop. (Two baselines are fitted by
scikit-learn, which is loaded when they are.)

=================  ==================================================================================
``codes``          ``Codes``: which features are active, and how strongly
``dictionary``     ``Dictionary``, what all architectures share, and the ``Loss`` they return
``linear``         ``Linear``, what architectures share whose encoder is one product; AuxK
``topk``           ``TopK``, and the k-sparse autoencoder
``dense``          ``Dense``, what those share whose active features are not counted in advance
``relu``           ``ReLU`` with L1; ``gated``: ``Gated``; ``jumprelu``: ``JumpReLU``
``mutual``         ``Mutual``, selection in the batch as a whole and its calibrated threshold
``batchtopk``      ``BatchTopK``, also called Mutual Choice; ``matryoshka``: ``Matryoshka``
``crosscoder``     ``Crosscoder``: one code for several sites
``featurechoice``  ``FeatureChoice``: each feature chooses its activations
``tied``           ``Tied``, what architectures share that encode with their decoder
``pursuit``        ``MatchingPursuit``: one feature after another
``groupbias``      ``GroupBias``: biases that make groups of features fire as often as each should
``baselines``      ``PCA``, ``ICA``, ``NMF``, ``Neurons`` and ``Random``: fitted, not trained
``sparse``         products with sparse codes and their gradients, at the cost of what is active
``gradients``      gradients that differ from autograd's on purpose
``inputs``         from a batch to the tensors a dictionary takes
``splice``         a dictionary in a running model
``fidelity``       how much it keeps, at what cost, and what the model loses by it
``storage``        ours on disk; ``files``: a manifest and its tensors, atomically
``formats``        load, from our files and from those of SAELens, sparsify, dictionary_learning and Gemma Scope; export
=================  ==================================================================================

Axes: ``batch d_in`` (several sites: ``batch site d_in``), ``batch k`` for codes, ``n_features d_out`` for
directions.
"""

from workbench.dictionaries.baselines import ICA, NMF, PCA, Neurons, Random
from workbench.dictionaries.batchtopk import BatchTopK
from workbench.dictionaries.codes import Codes
from workbench.dictionaries.crosscoder import Crosscoder
from workbench.dictionaries.dictionary import Dictionary, Loss
from workbench.dictionaries.featurechoice import FeatureChoice
from workbench.dictionaries.fidelity import Fidelity, fidelity, splice_kl
from workbench.dictionaries.formats import export, load_dictionary
from workbench.dictionaries.gated import Gated
from workbench.dictionaries.groupbias import GroupBias
from workbench.dictionaries.jumprelu import JumpReLU
from workbench.dictionaries.matryoshka import Matryoshka
from workbench.dictionaries.pursuit import MatchingPursuit
from workbench.dictionaries.relu import ReLU
from workbench.dictionaries.splice import splice, spliced
from workbench.dictionaries.storage import save
from workbench.dictionaries.topk import TopK

__all__ = [
    "ICA",
    "NMF",
    "PCA",
    "BatchTopK",
    "Codes",
    "Crosscoder",
    "Dictionary",
    "FeatureChoice",
    "Fidelity",
    "Gated",
    "GroupBias",
    "JumpReLU",
    "Loss",
    "MatchingPursuit",
    "Matryoshka",
    "Neurons",
    "Random",
    "ReLU",
    "TopK",
    "export",
    "fidelity",
    "load_dictionary",
    "save",
    "splice",
    "splice_kl",
    "spliced",
]
