"""What the features of a dictionary do: when they are active, on what, beside what, and to what effect.

=================  ==================================================================================
``describe``       one pass over a store: a ``FeatureSet``
``featureset``     ``FeatureSet``, on disk and read from there as it is asked for; ``feature``: ``Feature``
``search``         by prompt, label, text or direction
``effects``        on the logits, on the loss to first order, and exactly
``matches``        labels that a feature stands for
``neighbours``     features of like direction, and of like activations
``sketch``         quantiles of many streams at once
``keep``           the best of a stream, or a sample of it, for each feature
``tally``          the tokens that each feature meets most
``encoding``       any object with ``encode`` and ``W_dec`` as a dictionary
=================  ==================================================================================
"""

from workbench.features.describe import describe
from workbench.features.effects import Effect
from workbench.features.feature import Example, Feature, Group, Match
from workbench.features.featureset import FeatureSet, load_features

__all__ = ["Effect", "Example", "Feature", "FeatureSet", "Group", "Match", "describe", "load_features"]
