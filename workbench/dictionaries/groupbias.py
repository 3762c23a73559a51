"""GroupBias: features that learn nothing but directions, each told how often to fire."""

import math
from collections.abc import Sequence
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from typing_extensions import override

from workbench.dictionaries import sparse
from workbench.dictionaries.codes import Codes
from workbench.dictionaries.dictionary import Dictionary, Loss, unexplained
from workbench.dictionaries.gradients import tangent
from workbench.dictionaries.inputs import Batch
from workbench.dictionaries.linear import directions, refuse_pairs
from workbench.models import Site

EVERY = 10
"""Steps between two adaptations of the biases."""

PACE = 0.02
"""By which share of its strongest firing a bias moves in one of them."""

SILENT = 1e-6
"""A feature that fires less often than this is helped back."""

GAIN = 0.1
"""What all gains start at: a dictionary that rebuilds little, so that no feature is in another's way."""


@final
class GroupBias(Dictionary):
    """Adapt biases so that each group of features fires as often as it should (Chen et al. 2025, arXiv 2506.14002).

    Of ``r = x - centre``, feature ``i`` has the code ``gain[i] * |r| * relu(cos(W_dec[i], r) + b_enc[i])``: it fires
    where the cosine exceeds ``-b_enc[i]``, in 0..1, and encodes with the row it decodes with. The error of an
    activation counts as a share of its length, as if all had length one. Biases have no gradient. Every few steps
    that of a feature which fired more often than its group should falls, and that of one which fired never rises as
    far as its group fired strongly; so nothing is dead for long, and there is no AuxK. The groups' targets fall
    geometrically, the most frequent first. A feature finds a direction whose frequency is near its own: the width
    should be several times the number of those sought.

    It differs from the paper in what decides whether directions are found in some hundred steps; figures are shares
    of 128 directions found in 42 dimensions, three or twenty active, with all else as here or nearly so. Gains start
    near zero and are learnt as logarithms: directions come first, and then what they add up to. Biases start at the
    quantile of the sample, not at zero, and move faster. A code has what the bias takes off, as that of a ReLU: a
    JumpReLU's finds 78 % where this finds all. The highest target is 0.1, as in some of the paper's runs; at 0.5, the
    others', more are active than there are dimensions, rebuild anything, and find 21 %. So ``n_features`` times the
    mean of ``targets`` should be near the number expected on an activation. The centre is where short activations lie,
    since those have few features: the mean has all of them in it, and from there it finds half. It stays there:
    learnt, it makes up for codes that are still too small, and 16 % are found.

    Args:
        d_in: Width of the activations.
        n_features: How many features.
        groups: How many groups, of equal size; 10 or more are meant for data whose frequencies are unknown.
        highest: How often, at most, features of the first group fire: on which share of the activations.
        lowest: The same of the last group.
        d_out: As ``d_in``; it rebuilds what it reads.
        sites_in: The one site that is read and rebuilt.
        sites_out: The same.
        seed: Of the first directions.

    >>> GroupBias(8, 32, groups=3).targets
    tensor([0.1000, 0.0100, 0.0010])
    """

    targets: Float[Tensor, " group"]
    """How often a feature of each group should fire, at most."""
    group: Int[Tensor, " n_features"]
    """Which group each feature belongs to."""
    b_enc: Float[Tensor, " n_features"]
    """Minus the cosine beyond which a feature fires."""
    fires: Float[Tensor, " n_features"]
    peak: Float[Tensor, " n_features"]
    seen: Float[Tensor, ""]

    def __init__(
        self,
        d_in: int,
        n_features: int,
        *,
        groups: int = 10,
        highest: float | int = 0.1,
        lowest: float | int = 1e-3,
        d_out: int | None = None,
        sites_in: Site | Sequence[Site] = (),
        sites_out: Site | Sequence[Site] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(d_in, d_out or d_in, n_features, sites_in=sites_in, sites_out=sites_out)
        refuse_pairs(self)
        if not 1 <= groups <= n_features:
            raise ValueError(f"groups must lie in 1..{n_features} (n_features), got {groups}.")
        if not 0 < lowest <= highest <= 1:
            raise ValueError(
                "lowest and highest are shares of the activations, 0 < lowest <= highest <= 1; got "
                f"lowest={lowest} and highest={highest}."
            )
        self.groups, self.highest, self.lowest = groups, highest, lowest
        self.W_dec = nn.Parameter(directions(n_features, self.shape_out, torch.Generator().manual_seed(seed)))
        self.log_gain = nn.Parameter(torch.full((n_features,), math.log(GAIN)))
        targets = torch.linspace(math.log(highest), math.log(lowest), groups).exp()
        self.register_buffer("targets", targets, persistent=False)
        self.register_buffer("group", torch.arange(n_features) * groups // n_features, persistent=False)
        self.register_buffer("b_enc", torch.zeros(n_features))
        for name in ("fires", "peak"):  # since the last adaptation, as is how many activations were seen
            self.register_buffer(name, torch.zeros(n_features))
        self.register_buffer("seen", torch.zeros(()))

    @property
    @override
    def options(self) -> dict[str, Any]:
        return {"groups": self.groups, "highest": self.highest, "lowest": self.lowest}

    @override
    @torch.no_grad()
    def initialise(self, sample: Batch) -> None:
        super().initialise(sample)
        x, _ = self.pair(sample)
        for centre in (self.centre_in, self.centre_out):
            centre.copy_(_amid_the_short(x))
        cosines, _ = self._cosines((x - self.centre_in) * self.scale_in, self.W_dec)
        rank = (self.targets * len(x)).long()[self.group]
        quantile = cosines.sort(dim=0, descending=True).values.gather(0, rank.clamp(max=len(x) - 1)[None])[0]
        self.b_enc.copy_(-quantile.clamp(0, 1))

    def _cosines(self, u: Tensor, W: Tensor) -> tuple[Tensor, Tensor]:
        """Return [batch, n_features] cosines and [batch, 1] lengths of what exceeds the bias."""
        r = u - self.b_dec.detach()
        length = torch.linalg.vector_norm(r, dim=1, keepdim=True).clamp_min(torch.finfo(r.dtype).tiny)
        return (r / length) @ W.T, length

    def _dense(self, u: Tensor) -> Tensor:
        cosines, length = self._cosines(u, self.W_dec)
        return self.log_gain.exp() * length * (cosines + self.b_enc).relu()

    @override
    def _activate(
        self, u: Float[Tensor, "batch d_in"], *, training: bool
    ) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
        return sparse.compressed(self._dense, u, self.n_features)

    @override
    def loss(
        self,
        x: Float[Tensor, "batch d_in"],
        y: Float[Tensor, "batch d_out"],
        *,
        dead: Int[Tensor, " dead"],
    ) -> Loss:
        u = (x - self.centre_in) * self.scale_in
        W_dec = tangent(self.W_dec)
        cosines, length = self._cosines(u, W_dec)
        above = cosines + self.b_enc
        with torch.no_grad():
            self.fires += (above > 0).sum(0)
            torch.maximum(self.peak, above.amax(0), out=self.peak)
            self.seen += len(x)
        values = self.log_gain.exp() * length * above.relu()
        residual = u - self.b_dec.detach() - values @ W_dec
        error = (residual / length).square().sum(1).mean()
        slots = torch.arange(self.n_features, device=u.device).expand(values.shape)
        codes = Codes(values.detach() / self.unit, slots, self.n_features)
        return Loss(error, {"reconstruction": error}, codes, codes.fired, unexplained(residual, u))

    @override
    @torch.no_grad()
    def after_step(self, step: int) -> None:
        self.W_dec.div_(torch.linalg.vector_norm(self.W_dec, dim=-1, keepdim=True))
        if (step + 1) % EVERY:
            return
        frequency = self.fires / self.seen
        typical = self.by_group(self.peak) / self.by_group((self.peak > 0).to(self.peak)).clamp_min(1 / self.n_features)
        self.b_enc -= torch.where(frequency > self.targets[self.group], PACE * self.peak, 0)
        self.b_enc += torch.where(frequency < SILENT, PACE * typical[self.group], 0)
        self.b_enc.clamp_(-1, 0)
        for of_this_time in (self.fires, self.peak, self.seen):
            of_this_time.zero_()

    def by_group(self, values: Float[Tensor, " n_features"]) -> Float[Tensor, " group"]:
        """Return the mean over the features of each group."""
        sums = values.new_zeros(self.groups).index_add_(0, self.group, values)
        return sums / torch.bincount(self.group, minlength=self.groups)

    @torch.no_grad()
    def frequency(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, " group"]:
        """Return how often features of each group fire on activations ``x``: what ``targets`` is an upper bound of."""
        codes = self.encode(x)
        active = codes.indices[codes.values > 0]
        return self.by_group(torch.bincount(active, minlength=self.n_features) / len(x))

    @override
    def _fold_encoder(self) -> None:
        pass  # cosines with what exceeds the bias are the same in any units


@torch.no_grad()
def _amid_the_short(x: Float[Tensor, "batch d"]) -> Float[Tensor, " d"]:
    """Return the point from which the squared distances of ``x`` have the least harmonic mean, from the mean on."""
    point = x.mean(0)
    # Else a few equal activations could be that point, at no distance at all.
    least = 0.1 * (x - point).square().sum(1).mean()
    for _ in range(30):
        weight = 1 / (x - point).square().sum(1, keepdim=True).clamp_min(least).square()
        point = (weight * x).sum(0) / weight.sum()
    return point
