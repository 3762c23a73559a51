"""What every dictionary is: a sparse encoder, a linear decoder, and the units between them.

A dictionary reads activations ``x`` at ``sites_in`` and rebuilds ``y`` at ``sites_out``; an autoencoder has the
same sites on both sides. It is trained in units of its own, ``(x - centre) * scale``, in which the sample given
to ``initialise`` has mean zero and mean square one at each site, so that a learning rate means the same at every
site and, where there are several, none counts for more. Nobody outside sees those units: what ``encode`` takes, what
``decode`` returns and every value of ``Codes`` is in the units of the activations. ``folded`` moves centre and scale
into the weights.

One site has activations [batch, d], several have [batch, site, d], and so have weights and units; products see the
sites end to end.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from workbench.dictionaries import sparse
from workbench.dictionaries.codes import Codes
from workbench.dictionaries.inputs import Batch, as_sites, in_units, named, pick, refuse_nonfinite, rows, units
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
    """Fraction of the variance of this batch left unexplained, the mean over the sites."""


class Common(TypedDict, total=False):
    """The keywords that every architecture takes."""

    d_out: int | None
    sites_in: Site | Sequence[Site]
    sites_out: Site | Sequence[Site] | None
    seed: int


class Dictionary(nn.Module, ABC):
    """Sparse features of the activations at ``sites_in`` that rebuild those at ``sites_out``.

    ``decode(codes) = codes.dense() @ W_dec + bias``: row ``W_dec[i]`` is the direction that feature ``i``
    writes, and a code value is how far along it. Architectures are final classes that add encoder and loss.
    """

    W_skip: nn.Parameter | None
    """[d_out, d_in] in a skip transcoder, see ``Linear``."""
    centre_in: Float[Tensor, "*site_in d_in"]
    centre_out: Float[Tensor, "*site_out d_out"]
    scale_in: Float[Tensor, "*site_in"]
    scale_out: Float[Tensor, "*site_out"]
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
        if min(d_in, d_out, n_features) < 1:
            raise ValueError(f"Widths and n_features are at least 1, got {d_in} to {d_out} by {n_features} features.")
        self.d_in, self.d_out, self.n_features = d_in, d_out, n_features
        self.sites_in = as_sites(sites_in)
        self.sites_out = self.sites_in if sites_out is None else as_sites(sites_out)
        self.provenance: dict[str, Any] = {}
        """Model, data, training, metrics: whatever JSON can hold and a later reader should know; saved too."""
        self.shape_in, self.shape_out = _shape(self.sites_in, d_in), _shape(self.sites_out, d_out)
        """Of one activation: (d,), or (site, d) where there are several sites."""
        self.W_dec = nn.Parameter(torch.empty(n_features, *self.shape_out))
        self.b_dec = nn.Parameter(torch.zeros(self.shape_out))
        self.register_parameter("W_skip", None)
        for side, shape in (("in", self.shape_in), ("out", self.shape_out)):
            self.register_buffer(f"centre_{side}", torch.zeros(shape))
            self.register_buffer(f"scale_{side}", torch.ones(shape[:-1]))
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool))

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The constructor's keywords that belong to this architecture alone, as JSON holds them."""

    @abstractmethod
    def loss(
        self,
        x: Float[Tensor, "batch *site_in d_in"],
        y: Float[Tensor, "batch *site_out d_out"],
        *,
        dead: Int[Tensor, " dead"],
    ) -> Loss:
        """Return what a batch costs; ``dead`` lists the features to revive.

        By number and not as a mask, whose length would have to be asked of the device at every step.
        """

    @abstractmethod
    def _activate(self, u: Tensor, *, training: bool) -> tuple[Tensor, Tensor]:
        """Return values and indices [batch, k] of the codes of ``u`` [batch, d_in], all in training units."""

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
        flat = rows(x, self.shape_in, self.W_dec)
        refuse_nonfinite(flat)
        values, indices = self._activate(in_units(flat, self.centre_in, self.scale_in), training=training)
        shape = (*x.shape[: -len(self.shape_in)], values.shape[-1])
        return Codes((values / self.unit).view(shape), indices.view(shape), self.n_features)

    def decode(self, codes: Codes) -> Float[Tensor, "*batch d_out"]:
        """Return the activations that ``codes`` stand for; a skip transcoder adds ``skip(x)`` to them."""
        values, indices = codes.values.flatten(0, -2), codes.indices.flatten(0, -2)
        y = sparse.decode(values, indices, self.W_dec.flatten(1)).view(-1, *self.shape_out)
        bias = self.b_dec / self.scale_out[..., None] + self.centre_out - self.skip(self.centre_in)
        y = y * (self.unit / self.scale_out)[..., None] + bias
        return y.view(*codes.values.shape[:-1], *self.shape_out)

    def skip(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "..."]:
        """Return what passes from ``x`` into the reconstruction beside the codes; without ``W_skip`` a scalar 0."""
        if self.W_skip is None:
            return x.new_zeros(())
        y = rows(x, self.shape_in, self.W_skip) @ self.W_skip.T * (self.scale_in / self.scale_out)
        return y.view(*x.shape[:-1], self.d_out)

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Return the reconstruction, ``decode(encode(x)) + skip(x)``."""
        return self.decode(self.encode(x)) + self.skip(x)

    @property
    def unit(self) -> Float[Tensor, ""]:
        """What makes a code one in training units: ``scale_out``, of several sites that of largest activations."""
        return self.scale_out.amin()

    @property
    def autoencodes(self) -> bool:
        """Whether it rebuilds what it reads."""
        return self.sites_in == self.sites_out and self.d_in == self.d_out

    def pair(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return what to read and what to rebuild, on the dictionary's device and in its dtype.

        A tensor serves as both. From a mapping the dictionary takes its own sites: [batch, d] for one site,
        [batch, site, d] for several.
        """
        if not isinstance(batch, Tensor | Mapping):
            raise TypeError(
                "A batch is a tensor of activations or a mapping from sites to such tensors, got "
                f"{type(batch).__name__}; of a DataLoader that gives lists, pass (x for (x,) in loader)."
            )
        read = batch if isinstance(batch, Tensor) else pick(batch, self.sites_in)
        x = rows(read, self.shape_in, self.W_dec)
        if self.autoencodes:
            return x, x
        if isinstance(batch, Tensor):
            raise ValueError(
                f"This dictionary reads {named(self.sites_in)} and rebuilds {named(self.sites_out)}, and one "
                "tensor is one site; give a mapping from each site to its activations."
            )
        y = rows(pick(batch, self.sites_out), self.shape_out, self.W_dec)
        if len(y) != len(x):
            raise ValueError(
                f"This batch holds {len(x)} activations at {named(self.sites_in)} and {len(y)} at "
                f"{named(self.sites_out)}; row by row they belong to the same tokens, so give as many."
            )
        return x, y

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

    def prepare(self, steps: int) -> None:
        """Get ready for a training of so many steps.

        Raise if it would begin by changing what this computes: training keeps rows of ``W_dec`` at length one.
        """
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
        copy.W_dec.copy_(self.W_dec * (self.unit.double() / self.scale_out)[..., None])
        bias = self.b_dec.double() / self.scale_out[..., None] + self.centre_out
        if copy.W_skip is not None:
            copy.W_skip.mul_(self.scale_in.double() / self.scale_out)
            bias -= copy.W_skip.double() @ self.centre_in.double()
        copy.b_dec.copy_(bias)
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


def unexplained(residual: Float[Tensor, "batch *site d"], y: Float[Tensor, "batch *site d"]) -> Float[Tensor, ""]:
    """Return the fraction of the variance of ``y`` that ``residual`` leaves, its mean over sites, without gradient."""
    residual, y = residual.detach(), y.detach()
    return (residual.square().sum((0, -1)) / (y - y.mean(0)).square().sum((0, -1))).mean()


def _shape(sites: tuple[Site, ...], d: int) -> tuple[int, ...]:
    return (len(sites), d) if len(sites) > 1 else (d,)
