"""What a claim about features is held against: scorecards, supervised dictionaries, audit, nulls and controls.

=================  ==================================================================================
``attributes``     how few named scores tell classes apart, beside shuffled names and random words
``betting``        which concepts matter for an output: sequential tests by betting, with few false discoveries
``elude``          what labelled attributes explain of a model's outputs, and what unlabelled features add
``intervals``      how sure a rate is
``rows``           which rows judge a fit; ``search``: a few columns that explain what many do
=================  ==================================================================================
"""

from workbench.evaluation.attributes import Concise, concise
from workbench.evaluation.betting import Bets, bet_conditionally, bet_globally, bet_locally
from workbench.evaluation.elude import Elude, elude
from workbench.evaluation.intervals import Interval, rate

__all__ = [
    "Bets",
    "Concise",
    "Elude",
    "Interval",
    "bet_conditionally",
    "bet_globally",
    "bet_locally",
    "concise",
    "elude",
    "rate",
]
