"""What every dictionary is: a sparse encoder, a linear decoder, and the units between them.

A dictionary reads activations ``x`` at ``sites_in`` and rebuilds ``y`` at ``sites_out``; an autoencoder has the
same sites on both sides. It is trained in units of its own, ``(x - centre) * scale``, in which the sample given
to ``initialise`` has mean zero and mean square one, so that a learning rate means the same at every site.
Nobody outside sees those units: what ``encode`` takes, what ``decode`` returns and every value of ``Codes`` is
in the units of the activations. ``folded`` moves centre and scale into the weights.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from workbench.dictionaries import sparse
from workbench.dictionaries.codes import Codes
from workbench.dictionaries.inputs import Batch, as_sites, named, of_width, pick, refuse_nonfinite, units
from workbench.models import Site, TransformerBridge, fingerprint
from workbench.models.sites import hook_point


@dataclass(frozen=True)
class Loss:
    """What a dictionary costs on one training batch, and what fired."""

    total: Float[Tensor, ""]
    """What to differentiate: the sum of ``parts``."""

    parts: dict[str, Float[Tensor, ""]]
    """The weighted terms; "reconstruction" is the squared error over the variance met by ``initialise``."""

    codes: Codes
    """The codes of the batch, in the units of the activations."""

    fired: Bool[Tensor, " n_features"]
    """Which features were active anywhere in the batch."""

    fvu: Float[Tensor, ""]
    """Fraction of the variance of this batch left unexplained."""


class Dictionary(nn.Module, ABC):
    """Sparse features of the activations at ``sites_in`` that rebuild those at ``sites_out``.

    ``decode(codes) = codes.dense() @ W_dec + bias``: row ``W_dec[i]`` is the direction that feature ``i``
    writes, and a code value is how far along it. Architectures are final classes that add encoder and loss.
    """

    centre_in: Float[Tensor, " d_in"]
    centre_out: Float[Tensor, " d_out"]
    scale_in: Float[Tensor, ""]
    scale_out: Float[Tensor, ""]
    initialised: Bool[Tensor, ""]

    def __init__(
        self,
        d_in: int,
        d_out: int,
        n_features: int,
        *,
        sites_in: Site | Sequence[Site] = (),
        sites_out: Site | Sequence[Site] | None = None,
    ) -> None:
        super().__init__()
        self.d_in, self.d_out, self.n_features = d_in, d_out, n_features
        self.sites_in = as_sites(sites_in)
        self.sites_out = self.sites_in if sites_out is None else as_sites(sites_out)
        self.provenance: dict[str, Any] = {}
        """Model, data, training, metrics: whatever JSON can hold and a later reader should know; saved too."""
        self.W_dec = nn.Parameter(torch.empty(n_features, d_out))
        self.b_dec = nn.Parameter(torch.zeros(d_out))
        self.register_buffer("centre_in", torch.zeros(d_in))
        self.register_buffer("centre_out", torch.zeros(d_out))
        self.register_buffer("scale_in", torch.ones(()))
        self.register_buffer("scale_out", torch.ones(()))
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool))

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The constructor's keywords that belong to this architecture alone, as JSON holds them."""

    @abstractmethod
    def loss(
        self,
        x: Float[Tensor, "batch d_in"],
        y: Float[Tensor, "batch d_out"],
        *,
        dead: Int[Tensor, " dead"],
    ) -> Loss:
        """Return what a batch costs; ``dead`` lists the features to revive.

        By number and not as a mask, whose length would have to be asked of the device at every step.
        """

    @abstractmethod
    def _activate(
        self, u: Float[Tensor, "batch d_in"], *, training: bool
    ) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
        """Return values and indices of the codes of ``u``, all in training units."""

    @abstractmethod
    def _fold_encoder(self) -> None:
        """Move the units of both sides into the encoder's weights."""

    def neglected(self, silent: Bool[Tensor, " n_features"]) -> Bool[Tensor, " n_features"]:
        """Return which features to revive, given which have been silent for too long: those."""
        return silent

    def after_step(self, step: int) -> None:
        """Restore what optimiser step ``step`` may have broken, and move what follows a schedule."""

    def encode(self, x: Float[Tensor, "*batch d_in"], *, training: bool = False) -> Codes:
        """Return the codes of ``x``; ``training`` selects features as ``loss`` does, where that differs."""
        flat = of_width(x, self.d_in, self.W_dec).reshape(-1, self.d_in)
        refuse_nonfinite(flat)
        values, indices = self._activate((flat - self.centre_in) * self.scale_in, training=training)
        shape = (*x.shape[:-1], values.shape[-1])
        return Codes((values / self.scale_out).view(shape), indices.view(shape), self.n_features)

    def decode(self, codes: Codes) -> Float[Tensor, "*batch d_out"]:
        """Return the activations that ``codes`` stand for."""
        y = sparse.decode(codes.values.flatten(0, -2), codes.indices.flatten(0, -2), self.W_dec)
        y = y + (self.b_dec / self.scale_out + self.centre_out)
        return y.view(*codes.values.shape[:-1], self.d_out)

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Return the reconstruction, ``decode(encode(x))``."""
        return self.decode(self.encode(x))

    @property
    def autoencodes(self) -> bool:
        """Whether it rebuilds what it reads."""
        return self.sites_in == self.sites_out and self.d_in == self.d_out

    def pair(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return what to read and what to rebuild, on the dictionary's device and in its dtype.

        A tensor serves as both. From a mapping the dictionary takes its own sites: [batch, d] for one site,
        [batch, site, d] for several.
        """
        read = batch if isinstance(batch, Tensor) else pick(batch, self.sites_in)
        x = of_width(read, self.d_in, self.W_dec)
        if self.autoencodes:
            return x, x
        if isinstance(batch, Tensor):
            raise ValueError(
                f"This dictionary reads {named(self.sites_in)} and rebuilds {named(self.sites_out)}, and one "
                "tensor is one site; give a mapping from each site to its activations."
            )
        return x, of_width(pick(batch, self.sites_out), self.d_out, self.W_dec)

    def check(self, model: TransformerBridge) -> None:
        """Raise if ``model`` lacks a site of this dictionary, or is not the one that it says it was trained on."""
        trained_on = self.provenance.get("model")
        if trained_on is not None and trained_on != fingerprint(model):
            raise ValueError(
                f"This dictionary was trained on another model, with fingerprint {trained_on}, not "
                f"{fingerprint(model)}; load that model, or train a dictionary on this one (workbench train)."
            )
        for site in (*self.sites_in, *self.sites_out):
            hook_point(model, site)

    def check_training(self) -> None:
        """Raise if training would begin by changing what this computes: it keeps rows of ``W_dec`` at length one."""
        lengths = torch.linalg.vector_norm(self.W_dec.detach().flatten(1), dim=1)
        if (lengths - 1).abs().max() > 0.01:  # half precision on disk leaves less
            raise ValueError(
                f"The rows of W_dec have lengths from {lengths.min():.3g} to {lengths.max():.3g}, and training would "
                "make them 1, which changes what this dictionary computes; train a new one."
            )

    @torch.no_grad()
    def initialise(self, sample: Batch) -> None:
        """Measure centre and scale on a sample of activations: some thousands, spread over the data."""
        if self.initialised:
            raise ValueError("This dictionary is initialised; other units would change what it computes.")
        x, y = self.pair(sample)
        for side, acts in (("in", x), ("out", y)):
            refuse_nonfinite(acts)
            centre, scale = units(acts)
            getattr(self, f"centre_{side}").copy_(centre)
            getattr(self, f"scale_{side}").copy_(scale)
        self.initialised.fill_(True)

    @torch.no_grad()
    def folded(self) -> "Dictionary":
        """Return an equal dictionary whose weights act on activations as they are: centre 0, scale 1."""
        copy = deepcopy(self)
        copy._fold_encoder()
        copy.b_dec.copy_(self.b_dec.double() / self.scale_out + self.centre_out)
        for buffer in (copy.centre_in, copy.centre_out):
            buffer.zero_()
        for buffer in (copy.scale_in, copy.scale_out):
            buffer.fill_(1)
        return copy

    def describe(self) -> dict[str, Any]:
        """Return all it takes to build an empty dictionary of this kind, as JSON holds it."""
        return {
            "architecture": type(self).__name__,
            "d_in": self.d_in,
            "d_out": self.d_out,
            "n_features": self.n_features,
            "sites_in": [str(site) for site in self.sites_in],
            "sites_out": [str(site) for site in self.sites_out],
            "options": self.options,
        }

    def extra_repr(self) -> str:
        """Return what ``repr`` shows."""
        return ", ".join(f"{key}={value!r}" for key, value in self.describe().items() if key != "architecture")


def unexplained(residual: Float[Tensor, "batch d"], y: Float[Tensor, "batch d"]) -> Float[Tensor, ""]:
    """Return the fraction of the variance of ``y`` that ``residual`` leaves, without a gradient."""
    residual, y = residual.detach(), y.detach()
    return residual.square().sum() / (y - y.mean(0)).square().sum()
