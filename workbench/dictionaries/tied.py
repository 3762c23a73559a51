"""What architectures share that encode with the directions they decode with."""

from abc import ABC
from collections.abc import Sequence

import torch
from torch import nn
from typing_extensions import override

from workbench.dictionaries.dictionary import Dictionary
from workbench.dictionaries.linear import directions
from workbench.models import Site


class Tied(Dictionary, ABC):
    """A dictionary that rebuilds the one site it reads, with unit directions that serve both ways.

    Args:
        d_in: Width of the activations.
        n_features: How many features.
        d_out: As ``d_in``.
        sites_in: The one site that is read and rebuilt.
        sites_out: The same.
        seed: Of what is drawn.
    """

    def __init__(
        self,
        d_in: int,
        n_features: int,
        *,
        d_out: int | None = None,
        sites_in: Site | Sequence[Site] = (),
        sites_out: Site | Sequence[Site] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(d_in, d_in if d_out is None else d_out, n_features, sites_in=sites_in, sites_out=sites_out)
        if len(self.sites_in) > 1 or not self.autoencodes:
            raise ValueError(
                f"{type(self).__name__} reads one site and rebuilds one, the same, since it encodes with its "
                f"decoder; got {self.sites_in} of width {self.d_in} to read and {self.sites_out} of width "
                f"{self.d_out} to rebuild."
            )
        self.seed = seed
        self.W_dec = nn.Parameter(directions(n_features, self.shape_out, torch.Generator().manual_seed(seed)))

    @override
    @torch.no_grad()
    def after_step(self, step: int) -> None:
        self.W_dec.div_(torch.linalg.vector_norm(self.W_dec, dim=-1, keepdim=True))

    @override
    def _fold_encoder(self) -> None:
        pass  # codes are those of what exceeds the bias, in any units
