"""TopK: keep the k strongest features, and revive the dead ones."""

from collections.abc import Sequence
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
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


@final
class TopK(Dictionary):
    """Keep the ``k`` largest pre-activations of each input, where positive (Gao et al. 2024, arXiv 2406.04093).

    The loss is the squared error plus AuxK: the dead features, ``k`` at a time, rebuild what the living ones
    left over. The paper takes half the width at a time; but a feature returns to life by winning one of ``k``
    places, and where many share a small residual each learns codes too small to win (measured on a small language
    model: a third as many stay dead). Decoder rows keep norm one. The encoder starts as the decoder's
    transpose, scaled so that the first reconstructions have the best length.

    >>> TopK(8, 32, k=4)(torch.ones(2, 8)).shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        d_in: int,
        n_features: int,
        *,
        k: int,
        d_out: int | None = None,
        sites_in: Site | Sequence[Site] = (),
        sites_out: Site | Sequence[Site] | None = None,
        seed: int = 0,
    ) -> None:
        if not 0 < k <= n_features:
            raise ValueError(f"k must lie in 1..{n_features} (n_features), got {k}.")
        super().__init__(d_in, d_out or d_in, n_features, sites_in=sites_in, sites_out=sites_out)
        if max(len(self.sites_in), len(self.sites_out)) > 1:
            raise ValueError(f"TopK reads one site and rebuilds one, got {len(self.sites_in)} to read.")
        self.k = k
        random = torch.Generator().manual_seed(seed)
        self.W_dec = nn.Parameter(_directions(n_features, self.d_out, random))
        tied = self.W_dec.detach().clone() if self.autoencodes else _directions(n_features, d_in, random)
        self.W_enc = nn.Parameter(tied)
        """[n_features, d_in]: one row for each feature, as in ``W_dec``."""
        self.b_enc = nn.Parameter(torch.zeros(n_features))

    @property
    @override
    def options(self) -> dict[str, Any]:
        return {"k": self.k}

    @override
    @torch.no_grad()
    def initialise(self, sample: Batch) -> None:
        super().initialise(sample)
        if self.autoencodes:
            x, _ = self.pair(sample)
            guess, target = self(x) - self.centre_out, x - self.centre_out
            self.W_enc.mul_((guess * target).sum() / guess.square().sum())

    @override
    def _activate(
        self, u: Float[Tensor, "batch d_in"], *, training: bool
    ) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
        z, indices = sparse.strongest(u, self.W_enc, self.b_enc, self.k)
        return sparse.encode(u, self.W_enc, self.b_enc, z, indices).relu(), indices

    @override
    def loss(
        self,
        x: Float[Tensor, "batch d_in"],
        y: Float[Tensor, "batch d_out"],
        *,
        dead: Bool[Tensor, " n_features"],
    ) -> Loss:
        u = (x - self.centre_in) * self.scale_in
        v = u if y is x else (y - self.centre_out) * self.scale_out
        W_dec = tangent(self.W_dec)
        values, indices = self._activate(u, training=True)
        residual = v - self.b_dec - sparse.decode(values, indices, W_dec)
        reconstruction = residual.square().mean()
        auxk = self._auxk(u, residual.detach(), dead, W_dec)
        codes = Codes(values.detach() / self.scale_out, indices, self.n_features)
        parts = {"reconstruction": reconstruction, "auxk": auxk}
        return Loss(reconstruction + auxk, parts, codes, codes.fired, unexplained(residual, v))

    def _auxk(self, u: Tensor, residual: Tensor, dead: Tensor, W_dec: Tensor) -> Tensor:
        """Return the weighted error of the dead features' attempt at the residual, as a share of the residual."""
        ids = dead.nonzero().squeeze(1)
        if not len(ids):
            return residual.new_zeros(())
        # Dense over the dead alone: they are few, or soon will be.
        z = torch.addmm(self.b_enc[ids], u, self.W_enc[ids].T)
        values = reachable_relu(z)
        if len(ids) > self.k:
            chosen = sparse.largest(z.detach(), self.k)[1]
            values = values * torch.zeros_like(z).scatter_(1, chosen, 1.0)
        error = (residual - values @ W_dec[ids]).square().sum()
        # A few dead features cannot rebuild much, and are not pressed as hard as many.
        weight = AUXK * min(1.0, len(ids) / self.k)
        return weight * error / residual.square().sum().clamp_min(torch.finfo(residual.dtype).tiny)

    @override
    @torch.no_grad()
    def after_step(self, step: int) -> None:
        self.W_dec.div_(torch.linalg.vector_norm(self.W_dec, dim=-1, keepdim=True))

    @override
    def _fold_encoder(self) -> None:
        scale = self.scale_in.double() / self.scale_out
        centre = self.W_enc.double() @ self.centre_in.double()
        self.b_enc.copy_(self.b_enc.double() / self.scale_out - centre * scale)
        self.W_enc.copy_(self.W_enc.double() * scale)


def _directions(n: int, d: int, random: torch.Generator) -> Tensor:
    return nn.functional.normalize(torch.randn(n, d, generator=random), dim=-1)
