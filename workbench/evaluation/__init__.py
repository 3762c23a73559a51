"""Whether features are what they are taken for: read out by few units, decodable early or late, held against controls.

Knows activations and dictionaries; the truth is given as labels. What takes scikit-learn loads it when called.

=================  ==================================================================================
``probing``        ``sparse_probe``: how few units tell a label; ``over_spans``
``complexity``     ``complexity``: how late in a network features can be read off linearly
=================  ==================================================================================
"""

from workbench.evaluation.complexity import Complexity, complexity, feature_batches
from workbench.evaluation.probing import Probe, Scores, SparseProbe, over_spans, sparse_probe

__all__ = [
    "Complexity",
    "Probe",
    "Scores",
    "SparseProbe",
    "complexity",
    "feature_batches",
    "over_spans",
    "sparse_probe",
]
