"""What architectures share whose encoder is one product: ``x @ W_enc.T + b_enc``, then a choice.

An architecture adds how it chooses, and what it charges for codes. Start, units, the decoder's sphere, the
revival of dead features and the shape of the loss are here.
"""

import math
from abc import ABC
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from workbench.dictionaries import sparse
from workbench.dictionaries.codes import Codes
from workbench.dictionaries.dictionary import Common, Dictionary, Loss, unexplained
from workbench.dictionaries.gradients import reachable_relu, tangent
from workbench.dictionaries.inputs import Batch, in_units, named
from workbench.models import Site

AUXK = 1 / 32
"""Weight of the auxiliary loss (Gao et al. 2024)."""


class Shared(Common, total=False):
    """The keywords that every architecture of this kind takes: those of ``Linear``."""

    frozen: bool
    skip: bool


class Linear(Dictionary, ABC):
    """A dictionary whose features are chosen by one product of the input.

    Decoder rows keep norm one, and the decoder's bias starts at the mean of the sample, where training units have their
    zero (Gao et al. 2024, who take the geometric median); their mean square is one as in Lieberum et al. (2024, arXiv
    2408.05147). The encoder of an autoencoder starts as the decoder's transpose. That of a transcoder starts random,
    and each of its decoder rows as the mean output of the sample, weighted by the codes of that feature: on two MLPs of
    the shipped model, rows that start random leave a twentieth more variance after 600 steps, and four times as many
    features dead. The encoder is then scaled so that the first reconstructions have the best length.

    The loss is the mean squared error over ``d_out``, in training units, plus the architecture's own parts, plus AuxK
    (Gao et al. 2024, arXiv 2406.04093): the dead features, a few at a time, rebuild what the living ones left over.
    Everything but TopK's ``k`` places is the same for all, so AuxK is everywhere, also where the papers have no
    revival.

    Args:
        d_in: Width of the activations read.
        n_features: How many features.
        d_out: Width of the activations rebuilt; ``d_in`` by default.
        sites_in: The one site that is read.
        sites_out: The one site that is rebuilt; the one read by default.
        seed: Of the first directions.
        frozen: Whether the decoder stays as it was drawn while the rest is trained: the control of Korznikov et al.
            (2026, arXiv 2602.14111). What such a dictionary does as well is not owed to the directions of another.
        skip: Whether ``y`` has a part that is affine in ``x`` and passes beside the codes, ``W_skip [d_out, d_in]``,
            which starts at zero (Paulo et al. 2025, arXiv 2501.18823). Of a transcoder alone: an autoencoder would
            learn to copy.
    """

    revived: int
    """How many dead features at most take part in rebuilding one residual."""

    def __init__(
        self,
        d_in: int,
        n_features: int,
        *,
        d_out: int | None = None,
        sites_in: Site | Sequence[Site] = (),
        sites_out: Site | Sequence[Site] | None = None,
        seed: int = 0,
        frozen: bool = False,
        skip: bool = False,
    ) -> None:
        super().__init__(d_in, d_in if d_out is None else d_out, n_features, sites_in=sites_in, sites_out=sites_out)
        self.frozen = frozen
        self._refuse_sites()
        if skip and self.autoencodes:
            raise ValueError(
                f"skip=True is for a transcoder; this {type(self).__name__} rebuilds what it reads, "
                f"{named(self.sites_in)}, and would learn to copy it. Give other sites_out, or leave skip out."
            )
        random = torch.Generator().manual_seed(seed)
        self.W_dec = nn.Parameter(directions(n_features, self.shape_out, random))
        self.W_enc = nn.Parameter(
            self.W_dec.detach().clone() if self.autoencodes else directions(n_features, self.shape_in, random)
        )
        """[n_features, d_in]: one row for each feature, as in ``W_dec``."""
        self.b_enc = nn.Parameter(torch.zeros(n_features))
        if skip:
            self.W_skip = nn.Parameter(torch.zeros(self.d_out, d_in))
        self.revived = max(1, d_in // 2)

    @override
    @torch.no_grad()
    def initialise(self, sample: Batch) -> None:
        super().initialise(sample)
        x, y = self.pair(sample)
        u = in_units(x, self.centre_in, self.scale_in)
        v = u if y is x else in_units(y, self.centre_out, self.scale_out)
        values, indices = self._activate(u, training=True)
        if not (self.autoencodes or self.frozen):
            sums = sparse.sums_by_feature(v, values, indices, self.n_features)
            # A feature that is nowhere active has nothing to go by, and keeps its random direction.
            self.W_dec.copy_(nn.functional.normalize(torch.where(sums.any(1, keepdim=True), sums, self.W_dec)))
        guess = sparse.decode(values, indices, self.W_dec.flatten(1))
        self.W_enc.mul_((guess * v).sum() / guess.square().sum())

    def _refuse_sites(self) -> None:
        if max(len(self.sites_in), len(self.sites_out)) > 1:
            raise ValueError(
                f"{type(self).__name__} reads one site and rebuilds one, got {len(self.sites_in)} to read and "
                f"{len(self.sites_out)} to rebuild; a Crosscoder takes several."
            )

    @property
    def encoder(self) -> tuple[Float[Tensor, "n_features sites_d"], Float[Tensor, " n_features"]]:
        """``W_enc``, with the sites of a feature end to end, and ``b_enc``."""
        return self.W_enc.flatten(1), self.b_enc

    def cutoff(self, sample: Batch, k: float | int) -> Float[Tensor, ""]:
        """Return the pre-activation, in training units and at least 0, that ``k`` features exceed on average."""
        u = in_units(self.pair(sample)[0], self.centre_in, self.scale_in)
        z, _, kept = sparse.strongest_of_all(u, *self.encoder, max(1, round(k * len(u))))
        return z.masked_fill(~kept, torch.inf).min().clamp_min(0)

    @override
    def loss(self, x: Tensor, y: Tensor, *, dead: Tensor) -> Loss:
        u = in_units(x, self.centre_in, self.scale_in)
        v = u if y is x else in_units(y, self.centre_out, self.scale_out)
        W_dec = self.W_dec.detach().flatten(1) if self.frozen else tangent(self.W_dec.flatten(1))
        target = v if self.W_skip is None else v - u @ self.W_skip.T
        values, indices, residual, parts = self._fit(u, target, W_dec)
        parts["auxk"] = self._auxk(u, residual.detach(), dead, W_dec)
        codes = Codes(values.detach() / self.unit, indices, self.n_features)
        fvu = unexplained(residual.view_as(y), v.view_as(y))
        return Loss(torch.stack([*parts.values()]).sum(), parts, codes, codes.fired, fvu)

    def _fit(self, u: Tensor, v: Tensor, W_dec: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Return values and indices of the codes of ``u``, what they leave of ``v``, and what they cost."""
        values, indices = self._activate(u, training=True)
        residual = v - self.b_dec.flatten() - sparse.decode(values, indices, W_dec)
        return values, indices, residual, {"reconstruction": residual.square().mean()}

    def _auxk(self, u: Tensor, residual: Tensor, dead: Tensor, W_dec: Tensor) -> Tensor:
        """Return the weighted error of the dead features' attempt at the residual, as a share of the residual."""
        if not len(dead):
            return residual.new_zeros(())
        # Dense over the dead alone: they are few, or soon will be.
        z = torch.addmm(self.b_enc[dead], u, self.W_enc[dead].flatten(1).T)
        values = reachable_relu(z)
        if len(dead) > self.revived:
            chosen = sparse.largest(z.detach(), self.revived)[1]
            values = values * torch.zeros_like(z).scatter_(1, chosen, 1.0)
        error = (residual - values @ W_dec[dead]).square().sum()
        # A few dead features cannot rebuild much, and are not pressed as hard as many.
        weight = AUXK * min(1.0, len(dead) / self.revived)
        return weight * error / residual.square().sum().clamp_min(torch.finfo(residual.dtype).tiny)

    @override
    @torch.no_grad()
    def after_step(self, step: int) -> None:
        if not self.frozen:
            rows = self.W_dec.flatten(1)
            rows.div_(torch.linalg.vector_norm(rows, dim=-1, keepdim=True))

    @override
    def _fold_encoder(self) -> None:
        W_enc = self.W_enc.double() * (self.scale_in.double() / self.unit)[..., None]
        self.b_enc.copy_(self.b_enc.double() / self.unit - (W_enc * self.centre_in).flatten(1).sum(1))
        self.W_enc.copy_(W_enc)

    @override
    def describe(self) -> dict[str, Any]:
        told = {"frozen": self.frozen, "skip": self.W_skip is not None}
        described = super().describe()
        return described | {"options": described["options"] | {key: True for key, is_so in told.items() if is_so}}


def directions(n: int, shape: tuple[int, ...], random: torch.Generator) -> Float[Tensor, "n *site d"]:
    """Return ``n`` unit vectors of random direction."""
    return nn.functional.normalize(torch.randn(n, math.prod(shape), generator=random), dim=-1).view(n, *shape)


def places(k: int, n_features: int) -> int:
    """Return ``k``, if it is a number of features that can be active."""
    if k != int(k) or not 0 < k <= n_features:
        raise ValueError(f"k must lie in 1..{n_features} (n_features), got {k!r}.")
    return int(k)


def positive(name: str, value: float | int) -> float:
    """Return ``value``, if it can be a price or a width."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be a positive number, got {value}.")
    return value


def follow(threshold: Float[Tensor, "*shape"], ratio: Float[Tensor, "*shape"]) -> None:
    """Raise ``threshold`` where ``ratio`` times as many exceeded it as should, and lower it where too few did.

    It moves by a share of itself, so that it needs no unit, and comes to rest where the mean ratio is one. A
    twentieth of the surplus makes a memory of some ten batches: enough to average the noise of one, and short beside
    the time in which weights move.
    """
    threshold.clamp_(min=1e-3).mul_((0.05 * (ratio - 1).clamp(max=10)).exp())
