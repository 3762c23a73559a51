"""BatchTopK: the strongest features of the batch."""

from typing import final

from workbench.dictionaries.mutual import Mutual


@final
class BatchTopK(Mutual):
    """Keep the ``k * B`` largest pre-activations of a batch of B, where positive (Bussmann et al. 2024, 2412.06410).

    The Mutual Choice of Ayonrinde (2024, arXiv 2411.02124) is the same selection. ``encode`` keeps what exceeds a
    threshold at which ``k`` features are active on average, see ``Mutual``.

    Args:
        d_in: Width of the activations read.
        n_features: How many features.
        k: How many are active on an activation, on average.
        shared: As for every architecture of one product, see ``Linear``.

    >>> import torch
    >>> BatchTopK(8, 32, k=4)(torch.ones(2, 8)).shape
    torch.Size([2, 8])
    """
