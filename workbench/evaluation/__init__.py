"""Whether features are what they are taken for, each claim held against its controls.

Knows models, activations, dictionaries and features; the truth is given as labels. What takes scikit-learn loads it
when called.

==================  ==================================================================================
``scorecard``       ``scorecard``: everything that is asked of a dictionary, beside controls
``metrics``         what each number of a scorecard means; ``draws``: the texts and controls of each draw
``absorption``      which features stand for a label, and whether those of its kinds have taken it over
``description``     how many bits an activation takes, sent as codes
``losses``          what a model loses by what is put in the place of its activations
``audit``           ``audit``: is a foreign dictionary wired up as it was trained; ``wiring``: what is tried
``supervised``      ``supervise``: directions of known attributes; how far they, or a dictionary, hold a task
``interpretation``  what features mean in words of attributes; which values are occluded or split
``tasks``           both on one task, for several dictionaries: ``task_scorecard``
``probing``         ``sparse_probe``: how few units tell a label; ``over_spans``
``ablation``        ``ablate``: what the units found do for the loss, beside as many random ones
``complexity``      ``complexity``: how late in a network features can be read off linearly
``attributes``      how few named scores tell classes apart, beside shuffled names and random words
``betting``         which concepts matter for an output: sequential tests by betting, with few false discoveries
``elude``           what labelled attributes explain of a model's outputs, and what unlabelled features add
``intervals``       how sure a rate is, or a mean
``rows``            which rows judge a fit; ``search``: a few columns that explain what many do
==================  ==================================================================================
"""

from workbench.evaluation.ablation import Ablation, LossChange, ablate
from workbench.evaluation.attributes import Concise, concise
from workbench.evaluation.audit import Alternative, Audit, audit
from workbench.evaluation.betting import Bets, bet_conditionally, bet_globally, bet_locally
from workbench.evaluation.complexity import Complexity, complexity, feature_batches
from workbench.evaluation.elude import Elude, elude
from workbench.evaluation.interpretation import Coverage, Interpretation, Meaning, coverage, interpret
from workbench.evaluation.intervals import Interval, rate
from workbench.evaluation.losses import Loss
from workbench.evaluation.metrics import METRICS, Metric
from workbench.evaluation.probing import Probe, Scores, SparseProbe, over_spans, sparse_probe
from workbench.evaluation.scorecard import Measurement, Scorecard, scorecard
from workbench.evaluation.supervised import (
    Approximation,
    Control,
    Labelled,
    Place,
    Prompts,
    Supervised,
    approximation,
    control,
    supervise,
)
from workbench.evaluation.tasks import TaskScorecard, TaskScores, task_scorecard
from workbench.evaluation.wiring import Wiring

__all__ = [
    "METRICS",
    "Ablation",
    "Alternative",
    "Approximation",
    "Audit",
    "Bets",
    "Complexity",
    "Concise",
    "Control",
    "Coverage",
    "Elude",
    "Interpretation",
    "Interval",
    "Labelled",
    "Loss",
    "LossChange",
    "Meaning",
    "Measurement",
    "Metric",
    "Place",
    "Probe",
    "Prompts",
    "Scorecard",
    "Scores",
    "SparseProbe",
    "Supervised",
    "TaskScorecard",
    "TaskScores",
    "Wiring",
    "ablate",
    "approximation",
    "audit",
    "bet_conditionally",
    "bet_globally",
    "bet_locally",
    "complexity",
    "concise",
    "control",
    "coverage",
    "elude",
    "feature_batches",
    "interpret",
    "over_spans",
    "rate",
    "scorecard",
    "sparse_probe",
    "supervise",
    "task_scorecard",
]
