"""Crosscoder: one code for several sites."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Unpack, override

from workbench.dictionaries.inputs import Batch, named
from workbench.dictionaries.linear import Shared
from workbench.dictionaries.mutual import Mutual


@final
class Crosscoder(Mutual):
    """Read several sites at once into one code, and rebuild each (Lindsey et al. 2024, "Sparse crosscoders").

    A feature has a direction at each site, ``W_dec [n_features, site, d]``, and where it is absent, that direction
    is short: ``norms`` tells what is shared from what is not. The sites are sites of one model, or one site of
    several models. Each has units of its own, so that none counts for more, and what a code is a length of is the
    unit of the site of largest activations. Selection is that of the batch as a whole, as for models Minder et al.
    (2025, arXiv 2504.02922) have it, since a price on lengths would shorten directions that are there. They weight
    values by the sum of a feature's norms over the sites, which ranks a feature of both of two sites up to 1.4 times
    above one of a single site that explains as much. Here rows have norm one over all sites together, so that a
    value already is the length of all that its feature explains.

    Args:
        d_in: Width of the activations at each site.
        n_features: How many features.
        k: How many are active on an activation, on average.
        shared: As for every architecture of one product, see ``Linear``; but ``sites_in`` names two sites or more,
            in the order of the axis ``site``. Of one site in several models, name it once for each: batches are then
            tensors [batch, model, d]. The sites rebuilt are those read.

    >>> from workbench.models import Site
    >>> crosscoder = Crosscoder(8, 32, k=4, sites_in=[Site(0), Site(1)])
    >>> crosscoder(torch.ones(3, 2, 8)).shape, crosscoder.norms.shape
    (torch.Size([3, 2, 8]), torch.Size([32, 2]))
    """

    size: Float[Tensor, " site"]
    """Root mean square of what varies at each site, as ``initialise`` met it."""

    def __init__(self, d_in: int, n_features: int, *, k: int, **shared: Unpack[Shared]) -> None:
        super().__init__(d_in, n_features, k=k, **shared)
        self.register_buffer("size", torch.ones(len(self.sites_in)))

    @override
    def _refuse_sites(self) -> None:
        if len(self.sites_in) < 2 or not self.autoencodes:
            raise ValueError(
                "A Crosscoder rebuilds the sites it reads, two or more of one width; got "
                f"{named(self.sites_in)} of width {self.d_in} to read and {named(self.sites_out)} of width "
                f"{self.d_out} to rebuild. Give sites_in=[Site(…), Site(…)]; one site alone takes BatchTopK."
            )

    @override
    @torch.no_grad()
    def initialise(self, sample: Batch) -> None:
        super().initialise(sample)
        self.size.copy_(1 / self.scale_out)

    @property
    def norms(self) -> Float[Tensor, "n_features site"]:
        """How long each feature's direction is at each site, in units of that site; of norm one over the sites."""
        lengths = torch.linalg.vector_norm(self.W_dec.detach(), dim=-1) / (self.scale_out * self.size)
        return torch.nn.functional.normalize(lengths, dim=1)
