"""The one loop that trains dictionaries. Takes batches of activations; knows no language model.

=================  ==================================================================================
``config``         ``TrainConfig``: how to take steps
``loop``           ``train``, ``train_many`` and ``Training``
``learner``        one dictionary's share of a step
``step``           ``Step``: what one step reports
``feed``           batches, and the place reached in them
``interrupt``      Ctrl-C waits until a step is whole
``bar``            ``progress``: a training in a terminal; in a notebook, see ``workbench.views.training``
``loggers``        steps to TensorBoard and Weights & Biases
=================  ==================================================================================
"""

from workbench.training.bar import progress
from workbench.training.config import TrainConfig
from workbench.training.loop import Training, train, train_many
from workbench.training.step import Step

__all__ = ["Step", "TrainConfig", "Training", "progress", "train", "train_many"]
