"""What the features of a dictionary do: when they are active, on what, beside what, and to what effect.

=================  ==================================================================================
``describe``       one pass over a store: a ``FeatureSet``
``featureset``     ``FeatureSet``, on disk and read from there as it is asked for; ``feature``: ``Feature``
``explain``        explanations of features, scored on held-out contexts
``explanation``    ``Explanation``; the template and the judge that need no language model
``asked``          a language model as explainer and judge
``contexts``       what an explainer is shown, and what is held out
``scoring``        detection and fuzzing, with intervals and controls
``spans``          ``localise``: a feature beside the spans of a label
``strength``       ``by_strength``: a label from the strongest activations to the weakest
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

from workbench.features.asked import asked
from workbench.features.describe import describe
from workbench.features.effects import Effect
from workbench.features.explain import Explained, Explanations, explain
from workbench.features.explanation import Explanation
from workbench.features.feature import Example, Feature, Group, Match
from workbench.features.featureset import FeatureSet, load_features
from workbench.features.scoring import Interval, Prediction, Score
from workbench.features.spans import localise
from workbench.features.strength import by_strength

__all__ = [
    "Effect",
    "Example",
    "Explained",
    "Explanation",
    "Explanations",
    "Feature",
    "FeatureSet",
    "Group",
    "Interval",
    "Match",
    "Prediction",
    "Score",
    "asked",
    "by_strength",
    "describe",
    "explain",
    "load_features",
    "localise",
]
