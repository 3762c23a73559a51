"""How complex features are: how late in a network they can be read off linearly (Fel et al. 2024, arXiv 2407.06076).

A feature has values z on rows. What the activations x of an earlier layer say of it is the V-information
I_V(x → z) = H_V(z) - H_V(z | x) (Xu et al. 2020, arXiv 2002.10689): what predictors of a class V gain by seeing x. Here
V is the linear predictors with Gaussian errors of one fixed variance, so that the gain is one of mean squared error,
and over the error of a constant it is R², taken on rows that were not fitted. The complexity of a feature is

    1 - the mean over the earlier layers of R², cut to 0..1:

0 for what every layer has, 1 for what no layer has. This normalisation is ours; the paper's may differ from it. All
features of all layers are fitted in one pass that keeps second moments only, d² + d × features numbers for each layer.
Axes: [row, d] for activations, [row, feature] for values.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.activations import ActivationStore, Rows
from workbench.dictionaries import Dictionary
from workbench.models import Site

HELD_OUT = 4
"""One batch of so many is held out."""
# Of the mean variance along an axis: as good as none, to more than all.
RIDGES = torch.logspace(-8, 2, 11, dtype=torch.float64)


@dataclass(frozen=True)
class Complexity:
    """From which layers features can be read off linearly."""

    sites: tuple[Site, ...]
    """The layers, from the first."""

    decodability: Float[Tensor, "site feature"]
    """R² on held-out rows, in 0..1; NaN for a feature that is constant on the fitted or the held-out rows."""

    @property
    def score(self) -> Float[Tensor, " feature"]:
        """The complexity of each feature: 1 minus the mean of ``decodability`` over the layers."""
        return 1 - self.decodability.mean(0)

    def first(self, share: float = 0.9) -> Int[Tensor, " feature"]:
        """Return the number in ``sites`` of the first layer with a decodability of ``share``; -1 where none has it."""
        reached = self.decodability >= share
        return torch.where(reached.any(0), reached.int().argmax(0), -1)

    def to_frame(self) -> pd.DataFrame:
        """Return one line for each feature: its complexity, its first layer, and its decodability at every layer."""
        first = [str(self.sites[i]) if i >= 0 else "" for i in self.first().tolist()]
        table = pd.DataFrame({"feature": range(len(first)), "complexity": self.score.numpy(), "first": first})
        return table.assign(**{str(site): r2.numpy() for site, r2 in zip(self.sites, self.decodability, strict=True)})


@torch.no_grad()
def complexity(
    batches: Iterable[tuple[Mapping[Site, Float[Tensor, "row _d"]], Float[Tensor, "row feature"]]],
) -> Complexity:
    """Return how late features can be read off, from batches of activations and of the features' values.

    Every fourth batch is held out. Ridge regression, a ridge to each feature and layer, chosen by generalised
    cross-validation on the rows fitted (Golub et al. 1979), predicts all features at once; R² compares it with the mean
    of the fitted rows. Scale and origin of a feature change nothing.

    Args:
        batches: The activations at the earlier layers, always the same, and the values of the features, on the same
            rows; ``feature_batches`` makes them of a store. A finite stream of at least four batches.
    """
    fitted: dict[Site, _Moments] = {}
    held: dict[Site, _Moments] = {}
    origin, origins = torch.zeros(()), {}
    n = 0
    for n, (acts, z) in enumerate(batches, 1):
        alike = z.ndim == 2 and len(z) > 0 and all(len(x) == len(z) for x in acts.values())
        if not alike or (n > 1 and acts.keys() != fitted.keys()):
            raise ValueError(
                "Each batch holds activations at the same layers and values [row, feature], of one row or more; batch "
                f"{n} has {', '.join(f'{len(x)} rows at {site}' for site, x in acts.items()) or 'no activations'} and "
                f"values {tuple(z.shape)}, batch 1 was of {', '.join(map(str, fitted or acts))}."
            )
        z = z.double()
        if n == 1:
            # One of the rows: about zero, what varies would drown in the mean where that is large.
            origin, origins = z[0], {site: x[0].to(z) for site, x in acts.items()}
            for parts in (fitted, held):
                parts.update({site: _Moments(start, origin) for site, start in origins.items()})
        z = z - origin
        for site, x in acts.items():
            (held if n % HELD_OUT == 0 else fitted)[site].add(x.to(z) - origins[site], z)
    if n < HELD_OUT or not fitted:
        raise ValueError(
            f"complexity holds out one batch of {HELD_OUT}, so it needs {HELD_OUT} or more, of one layer or more; got "
            f"{n} of {len(fitted)} layers. Give smaller batches."
        )
    for site in fitted:
        if not (fitted[site].finite and held[site].finite):
            raise ValueError(f"Activations at {site}, or values of features, are not finite on every row; drop those.")
    sites = tuple(sorted(fitted))
    return Complexity(sites, torch.stack([_explained(fitted[site], held[site]) for site in sites]).float().cpu())


def feature_batches(
    store: ActivationStore,
    features: Dictionary | Callable[[Rows], Float[Tensor, "row feature"]],
    sites: Sequence[Site] | None = None,
    *,
    size: int = 1024,
) -> Iterator[tuple[dict[Site, Float[Tensor, "row _d"]], Float[Tensor, "row feature"]]]:
    """Yield what ``complexity`` takes: the rows of ``store`` in their order, so that documents are held out together.

    Args:
        store: Activations at the earlier layers, and at the site that a dictionary reads.
        features: A dictionary, for the values of its features; or a function of rows, such as of their labels.
        sites: The earlier layers; by default the sites of the store, and with a dictionary those before its own.
        size: Rows in a batch.
    """
    read: list[Site] = list(features.sites_in) if isinstance(features, Dictionary) else []
    if sites is None:
        sites = [site for site in store.sites if not read or site < min(read)]
    if not sites:
        raise ValueError(
            f"The features are read at {', '.join(map(str, read))} and the store has no site before it, only "
            f"{', '.join(map(str, store.sites))}; collect earlier ones."
        )
    wanted = list(dict.fromkeys([*sites, *(read or store.sites)]))
    for start in range(0, len(store), size):
        rows = store.rows(slice(start, start + size), wanted)
        z = features.encode(features.pair(rows.acts)[0]).dense() if isinstance(features, Dictionary) else features(rows)
        yield {site: rows.acts[site] for site in sites}, z.detach()


class _Moments:
    """Sums over rows of x, z and their products, both counted from an origin of which this knows only the shape."""

    def __init__(self, x: Tensor, z: Tensor) -> None:
        self.rows = 0
        self.x, self.z, self.zz = torch.zeros_like(x), torch.zeros_like(z), torch.zeros_like(z)
        self.xx, self.xz = x.new_zeros(len(x), len(x)), x.new_zeros(len(x), len(z))

    def add(self, x: Tensor, z: Tensor) -> None:
        self.rows += len(x)
        self.x += x.sum(0)
        self.z += z.sum(0)
        self.zz += z.square().sum(0)
        self.xx += x.T @ x
        self.xz += x.T @ z

    @property
    def finite(self) -> bool:
        """Whether everything was that has been added."""
        return all(bool(part.isfinite().all()) for part in (self.xx, self.xz, self.zz))

    @property
    def varies(self) -> Tensor:
        """Which features are not constant."""
        square = self.zz / self.rows
        return square - (self.z / self.rows) ** 2 > 1e-12 * square

    def about(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the means of x xᵀ, x z and z², with both counted from the points given."""
        mx, mz = self.x / self.rows, self.z / self.rows
        dx, dz = mx - x, mz - z
        xx = self.xx / self.rows - mx[:, None] * mx + dx[:, None] * dx
        xz = self.xz / self.rows - mx[:, None] * mz + dx[:, None] * dz
        return xx, xz, (self.zz / self.rows - mz**2).clamp_min(0) + dz**2


def _explained(fitted: _Moments, held: _Moments) -> Tensor:
    """Return R² [feature] of the held-out rows by what fits the others."""
    means = fitted.x / fitted.rows, fitted.z / fitted.rows
    xx, xz, zz = fitted.about(*means)
    size, basis = torch.linalg.eigh(xx)
    size = size.clamp_min(0)
    ridges = RIDGES.to(size) * size.mean().clamp_min(1e-300)
    along = basis.T @ xz
    best = torch.full_like(zz, torch.inf)
    ridge = ridges[-1].expand_as(zz)
    for value in ridges:
        kept = 1 / (size + value)
        error = zz - (along.square() * (2 * kept - size * kept**2)[:, None]).sum(0)
        free = 1 - (1 + (size * kept).sum()) / fitted.rows  # the mean is fitted too
        if free < 0.01:  # as many dimensions as rows: nothing is left to judge by
            continue
        crossed = error / free**2
        ridge = torch.where(crossed < best, value, ridge)
        best = torch.minimum(crossed, best)
    weight = basis @ (along / (size[:, None] + ridge))
    xx, xz, null = held.about(*means)
    error = null - 2 * (weight * xz).sum(0) + (weight * (xx @ weight)).sum(0)
    varies = fitted.varies & held.varies
    return torch.where(varies, 1 - error / torch.where(varies, null, 1), torch.nan).clamp(0, 1)
