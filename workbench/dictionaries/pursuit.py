"""Matching pursuit: one feature after another, each fitted to what the earlier ones left."""

from copy import copy
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Unpack, override

from workbench.dictionaries.codes import Codes
from workbench.dictionaries.dictionary import Common, Loss, unexplained
from workbench.dictionaries.gradients import reachable_relu, tangent
from workbench.dictionaries.inputs import Batch, in_units
from workbench.dictionaries.linear import AUXK, places
from workbench.dictionaries.tied import Tied

CANDIDATES = 64
"""Rows among which a first direction is chosen."""

SHARPNESS = 16
"""Power of the cosine with which a row counts for a first direction: a half at 17 degrees, nothing at 45."""

NOTHING = 1e-5
"""Share of the typical length that is rounding: a row that is a direction leaves it, and should have one code."""

SHORT = 0.3
"""Share of the typical length below which a residual is what imperfect directions left, and starts no other."""


@final
class MatchingPursuit(Tied):
    """Encode by unrolled matching pursuit with the decoder's rows (Costa et al. 2025, arXiv 2506.03093).

    The residual starts as ``x - bias``. Each step finds the row ``j`` of greatest product with it, takes that product
    as the code of feature ``j`` and subtracts ``code * W_dec[j]``, so the residual never grows. A row stops when the
    feature was picked before or the product is not positive, after ``k`` steps, or once the residual is short enough;
    both limits can be moved after training, see ``sparser``. Slots of the codes are in the order of the steps. There
    is no encoder, and the loss is the squared error, with a gradient through all steps; of the dead features, the one
    nearest to each final residual takes one more step, at the weight of AuxK. A step costs one product: ``k`` times
    what TopK costs.

    That loss has poor minima: where a child fires only with its parent, from random directions about as many features
    end as sums of the two as on either, and no small step leads out. So ``initialise`` takes the directions one at a
    time from the sample, each the residual row that most other rows point along, and subtracts it before the next: a
    parent comes before its children, which are then alone in what it leaves. This is mountain clustering (Yager and
    Filev 1994, doi 10.1109/21.299710) on the sphere, with the pursuit as its subtraction. The bias starts at the
    geometric median, as in Gao et al. (2024), where nothing is active rather than a little of everything.

    Args:
        d_in: Width of the activations.
        n_features: How many features.
        k: How many steps, and so active features, at most.
        until: Stop where the residual is shorter than this share of the typical input's length.
        shared: As for every dictionary of one site, see ``Tied``.

    >>> dictionary = MatchingPursuit(8, 32, k=4)
    >>> dictionary.sparser(k=2).encode(torch.ones(3, 8)).values.shape
    torch.Size([3, 2])
    """

    length: Float[Tensor, ""]

    def __init__(
        self,
        d_in: int,
        n_features: int,
        *,
        k: int,
        until: float | int = 0.0,
        **shared: Unpack[Common],
    ) -> None:
        super().__init__(d_in, n_features, **shared)
        self.k, self.until = places(k, n_features), _share(until)
        self.register_buffer("length", torch.full((), d_in**0.5))

    @property
    @override
    def options(self) -> dict[str, Any]:
        return {"k": self.k, "until": self.until}

    def sparser(self, *, k: int | None = None, until: float | int | None = None) -> "MatchingPursuit":
        """Return a dictionary of the same weights, shared, that stops earlier, or later: it needs no retraining."""
        twin = copy(self)
        twin.k = self.k if k is None else places(k, self.n_features)
        twin.until = self.until if until is None else _share(until)
        return twin

    def _pursue(self, u: Tensor, W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return values and indices of the codes, and the residual."""
        residual, values, indices = u - self.b_dec, [], []
        picked = torch.zeros(len(u), self.n_features, dtype=torch.bool, device=u.device)
        going = torch.ones(len(u), 1, dtype=torch.bool, device=u.device)
        for _ in range(self.k):
            with torch.no_grad():
                best = (residual @ W.T).argmax(1, keepdim=True)
                going = going & ~picked.gather(1, best)
                norm = torch.linalg.vector_norm(residual, dim=1, keepdim=True)
                going = going & (norm > max(self.until, NOTHING) * self.length)
                picked.scatter_(1, best, True)
            row = F.embedding(best[:, 0], W)
            value = torch.linalg.vecdot(residual, row)[:, None].relu() * going
            residual = residual - value * row
            values.append(value)
            indices.append(best)
        return torch.cat(values, 1), torch.cat(indices, 1), residual

    @override
    @torch.no_grad()
    def initialise(self, sample: Batch) -> None:
        super().initialise(sample)
        u = in_units(self.pair(sample)[0], self.centre_in, self.scale_in)
        self.b_dec.copy_(_median(u))
        residual, random = u - self.b_dec, torch.Generator(u.device).manual_seed(self.seed)
        for row in self.W_dec:
            norms = torch.linalg.vector_norm(residual, dim=1)
            long = (norms > SHORT * self.length).to(u.dtype)
            if not long.any():
                break
            towards = F.normalize(residual, dim=1)
            candidates = towards[long.multinomial(CANDIDATES, replacement=True, generator=random)]
            # A little by length, or two that have each other alone would be as good, and rounding would choose.
            votes = long * (1 + 1e-3 * norms / self.length)
            row.copy_(candidates[(votes @ (towards @ candidates.T).relu().pow(SHARPNESS)).argmax()])
            residual -= (residual @ row).relu()[:, None] * row

    @override
    def _activate(self, u: Tensor, *, training: bool) -> tuple[Tensor, Tensor]:
        return self._pursue(u, self.W_dec)[:2]

    @override
    def loss(self, x: Tensor, y: Tensor, *, dead: Tensor) -> Loss:
        u = (x - self.centre_in) * self.scale_in
        W_dec = tangent(self.W_dec)
        values, indices, residual = self._pursue(u, W_dec)
        parts = {"reconstruction": residual.square().mean(), "auxk": residual.new_zeros(())}
        if len(dead):
            left = residual.detach()
            z, best = (left @ W_dec[dead].T).max(1, keepdim=True)
            error = (left - reachable_relu(z) * W_dec[dead[best[:, 0]]]).square().sum()
            parts["auxk"] = AUXK * error / left.square().sum().clamp_min(torch.finfo(left.dtype).tiny)
        codes = Codes(values.detach() / self.scale_out, indices, self.n_features)
        return Loss(torch.stack([*parts.values()]).sum(), parts, codes, codes.fired, unexplained(residual, u))

    @override
    def _fold_encoder(self) -> None:
        self.length.div_(self.scale_out)


def _median(u: Tensor) -> Tensor:
    """Return the geometric median of rows: the point of least mean distance, by the iteration of Weiszfeld (1937)."""
    median = u.mean(0)
    for _ in range(20):
        weights = 1 / torch.linalg.vector_norm(u - median, dim=1).clamp_min(1e-3)
        median = weights @ u / weights.sum()
    return median


def _share(until: float | int) -> float:
    if not 0 <= until < 1:
        raise ValueError(f"until is a share of the input's length, at least 0 and below 1, got {until}.")
    return until
