"""What architectures share whose encoder is one product: ``x @ W_enc.T + b_enc``, then a choice.

An architecture adds how it chooses, and what it charges for codes. Start, units, the decoder's sphere, the
revival of dead features and the shape of the loss are here.
"""

from abc import ABC
from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from typing_extensions import override

from workbench.dictionaries import sparse
from workbench.dictionaries.codes import Codes
from workbench.dictionaries.dictionary import Dictionary, Loss, unexplained
from workbench.dictionaries.gradients import reachable_relu, tangent
from workbench.dictionaries.inputs import Batch
from workbench.models import Site

AUXK = 1 / 32
"""Weight of the auxiliary loss (Gao et al. 2024)."""


class Shared(TypedDict, total=False):
    """The keywords that every architecture of this kind takes: those of ``Linear``."""

    d_out: int | None
    sites_in: Site | Sequence[Site]
    sites_out: Site | Sequence[Site] | None
    seed: int
    frozen: bool


class Linear(Dictionary, ABC):
    """A dictionary whose features are chosen by one product of the input.

    Decoder rows keep norm one. The encoder starts as the decoder's transpose, scaled so that the first
    reconstructions have the best length, and the decoder's bias at the mean of the sample, where training units have
    their zero (Gao et al. 2024, who take the geometric median); their mean square is one as in Lieberum et al. (2024,
    arXiv 2408.05147). The loss is the mean squared error over ``d_out``, in training units,
    plus the architecture's own parts, plus AuxK (Gao et al. 2024, arXiv 2406.04093): the dead features, a few
    at a time, rebuild what the living ones left over. Everything but TopK's ``k`` places is the same for all, so
    AuxK is everywhere, also where the papers have no revival.

    Args:
        d_in: Width of the activations read.
        n_features: How many features.
        d_out: Width of the activations rebuilt; ``d_in`` by default.
        sites_in: The one site that is read.
        sites_out: The one site that is rebuilt; the one read by default.
        seed: Of the first directions.
        frozen: Whether the decoder stays as it was drawn while the rest is trained: the control of Korznikov et al.
            (2026, arXiv 2602.14111). What such a dictionary does as well is not owed to the directions of another.
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
    ) -> None:
        super().__init__(d_in, d_out or d_in, n_features, sites_in=sites_in, sites_out=sites_out)
        self.frozen = frozen
        if max(len(self.sites_in), len(self.sites_out)) > 1:
            raise ValueError(
                f"{type(self).__name__} reads one site and rebuilds one, got {len(self.sites_in)} to read."
            )
        random = torch.Generator().manual_seed(seed)
        self.W_dec = nn.Parameter(directions(n_features, self.d_out, random))
        tied = self.W_dec.detach().clone() if self.autoencodes else directions(n_features, d_in, random)
        self.W_enc = nn.Parameter(tied)
        """[n_features, d_in]: one row for each feature, as in ``W_dec``."""
        self.b_enc = nn.Parameter(torch.zeros(n_features))
        self.revived = max(1, d_in // 2)

    @override
    def describe(self) -> dict[str, Any]:
        told = super().describe()
        return told | {"options": told["options"] | {"frozen": True}} if self.frozen else told

    @override
    @torch.no_grad()
    def initialise(self, sample: Batch) -> None:
        super().initialise(sample)
        if self.autoencodes:
            x, _ = self.pair(sample)
            guess, target = self.decode(self.encode(x, training=True)) - self.centre_out, x - self.centre_out
            self.W_enc.mul_((guess * target).sum() / guess.square().sum())

    def cutoff(self, sample: Batch, k: float | int) -> Float[Tensor, ""]:
        """Return the pre-activation, in training units and at least 0, that ``k`` features exceed on average."""
        x, _ = self.pair(sample)
        u = (x - self.centre_in) * self.scale_in
        z, _, kept = sparse.strongest_of_all(u, self.W_enc, self.b_enc, max(1, round(k * len(u))))
        return z.masked_fill(~kept, torch.inf).min().clamp_min(0)

    @override
    def loss(
        self,
        x: Float[Tensor, "batch d_in"],
        y: Float[Tensor, "batch d_out"],
        *,
        dead: Int[Tensor, " dead"],
    ) -> Loss:
        u = (x - self.centre_in) * self.scale_in
        v = u if y is x else (y - self.centre_out) * self.scale_out
        W_dec = self.W_dec.detach() if self.frozen else tangent(self.W_dec)
        values, indices, residual, parts = self._fit(u, v, W_dec)
        parts["auxk"] = self._auxk(u, residual.detach(), dead, W_dec)
        codes = Codes(values.detach() / self.scale_out, indices, self.n_features)
        return Loss(torch.stack([*parts.values()]).sum(), parts, codes, codes.fired, unexplained(residual, v))

    def _fit(self, u: Tensor, v: Tensor, W_dec: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Return values and indices of the codes of ``u``, what they leave of ``v``, and what they cost."""
        values, indices = self._activate(u, training=True)
        residual = v - self.b_dec - sparse.decode(values, indices, W_dec)
        return values, indices, residual, {"reconstruction": residual.square().mean()}

    def _auxk(self, u: Tensor, residual: Tensor, dead: Tensor, W_dec: Tensor) -> Tensor:
        """Return the weighted error of the dead features' attempt at the residual, as a share of the residual."""
        if not len(dead):
            return residual.new_zeros(())
        # Dense over the dead alone: they are few, or soon will be.
        z = torch.addmm(self.b_enc[dead], u, self.W_enc[dead].T)
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
            self.W_dec.div_(torch.linalg.vector_norm(self.W_dec, dim=-1, keepdim=True))

    @override
    def _fold_encoder(self) -> None:
        scale = self.scale_in.double() / self.scale_out
        centre = self.W_enc.double() @ self.centre_in.double()
        self.b_enc.copy_(self.b_enc.double() / self.scale_out - centre * scale)
        self.W_enc.copy_(self.W_enc.double() * scale)


def directions(n: int, d: int, random: torch.Generator) -> Float[Tensor, "n d"]:
    """Return ``n`` unit vectors of random direction."""
    return nn.functional.normalize(torch.randn(n, d, generator=random), dim=-1)


def places(k: int, n_features: int) -> int:
    """Return ``k``, if so many features can be active."""
    if not 0 < k <= n_features:
        raise ValueError(f"k must lie in 1..{n_features} (n_features), got {k}.")
    return k


def refuse_pairs(dictionary: Dictionary) -> None:
    """Raise if ``dictionary`` is to rebuild something else than the one site that it reads."""
    if len(dictionary.sites_in) > 1 or not dictionary.autoencodes:
        raise ValueError(
            f"{type(dictionary).__name__} reads one site and rebuilds one, the same, since it encodes with its "
            f"decoder; got {dictionary.sites_in} of width {dictionary.d_in} to read and {dictionary.sites_out} of "
            f"width {dictionary.d_out} to rebuild."
        )


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
