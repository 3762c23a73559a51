"""The one loop that trains dictionaries. Takes batches of activations; knows no language model.

=================  ==================================================================================
``config``         ``TrainConfig``: how to take steps
``loop``           ``train``, ``train_many`` and ``Training``
``learner``        one dictionary's share of a step
``step``           ``Step``: what one step reports
``feed``           batches, and the place reached in them
``interrupt``      Ctrl-C waits until a step is whole
=================  ==================================================================================
"""

from workbench.training.config import TrainConfig
from workbench.training.loop import Training, train, train_many
from workbench.training.step import Step

__all__ = ["Step", "TrainConfig", "Training", "train", "train_many"]
