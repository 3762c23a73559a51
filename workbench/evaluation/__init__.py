"""Scorecards, supervised dictionaries, audit, nulls and controls: what a dictionary is worth, and beside what.

Knows models, activations and dictionaries; trains nothing and draws nothing.

==================  ==================================================================================
``audit``           ``audit``: is a foreign dictionary wired up as it was trained; ``wiring``: what is tried
``supervised``      ``supervise``: directions of known attributes; how far they, or a dictionary, hold a task
``interpretation``  what features mean in words of attributes; which values are occluded or split
``tasks``           both on one task, for several dictionaries: ``task_scorecard``
==================  ==================================================================================
"""

from workbench.evaluation.audit import Alternative, Audit, audit
from workbench.evaluation.interpretation import (
    Coverage,
    Interpretation,
    Meaning,
    coverage,
    interpret,
)
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
from workbench.evaluation.wiring import Loss, Wiring

__all__ = [
    "Alternative",
    "Approximation",
    "Audit",
    "Control",
    "Coverage",
    "Interpretation",
    "Labelled",
    "Loss",
    "Meaning",
    "Place",
    "Prompts",
    "Supervised",
    "TaskScorecard",
    "TaskScores",
    "Wiring",
    "approximation",
    "audit",
    "control",
    "coverage",
    "interpret",
    "supervise",
    "task_scorecard",
]
