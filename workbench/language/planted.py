"""Planted activations: rows X = H V of a dictionary that is known, to hold every method against.

A :class:`World` is made of named parts. Each part, made by one of the functions below, is a group of features with
unit directions V and a law by which they fire. Rows come with their true coefficients H, and :func:`recovery` says
how well other directions match the true ones. Nothing here knows of models or dictionaries. Axes: [row, d] for
activations, [row, feature] for coefficients, [feature, d] for directions.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor


@dataclass(frozen=True)
class Part:
    """A group of features: which there are, where they point, and when they fire.

    ``dataclasses.replace(tree(), size=1.0, spread=0.0)`` is a tree of ones.
    """

    names: Sequence[str]

    directions: Callable[[int, Generator], Tensor]
    """Draws unit directions [feature, d] of a width d."""

    frequency: Sequence[float]
    """The exact probability that each feature fires on a row."""

    fire: Callable[[int, Generator], Tensor]
    """Draws [row, feature] for a number of rows: 1 where a feature fires, 0 where it is silent."""

    parent: Sequence[int] | None = None
    """The feature of this part without which each one is silent, -1 for none; None where none has a parent."""

    size: float | Sequence[float] = 1.5
    """Mean coefficient of a feature that fires; one for all, or one for each."""

    spread: float = 0.25
    """Standard deviation of the coefficient, a normal number taken without its sign."""


def law(*blocks: tuple[Tensor, Sequence[float]]) -> tuple[list[float], Callable[[int, Generator], Tensor]]:
    """Return the ``frequency`` and the ``fire`` of a part made of blocks that are independent of each other.

    A block lists the ways [way, feature] in which its features fire together, as ones and zeros, and the
    probability of each way; in the remaining rows it is silent.
    """
    frequency: list[float] = []
    tables = []
    for ways, p in blocks:
        if min(p) < -1e-9 or sum(p) > 1 + 1e-9:
            raise ValueError(
                "The ways in which features fire exclude each other, so their probabilities are not negative and sum "
                f"to at most 1; got {min(p):.3g} to {max(p):.3g}, which sum to {sum(p):.3g}."
            )
        share = torch.tensor(p, dtype=torch.float64)
        frequency += (share @ ways.double()).tolist()
        tables.append((F.pad(ways, (0, 0, 0, 1)), share.cumsum(0)))  # past the last way: silence

    def fire(rows: int, generator: Generator) -> Tensor:
        at = torch.rand(len(tables), rows, dtype=torch.float64, generator=generator)
        drawn = [ways[torch.searchsorted(up_to, u, right=True)] for (ways, up_to), u in zip(tables, at, strict=True)]
        return torch.cat(drawn, dim=1)

    return frequency, fire


def plain(n: int, *, active: Sequence[int] = (3, 20), zipf: float = 0.0) -> Part:
    """Return ``n`` unrelated features: exactly s of them on a row, in frequencies ∝ rank ** -zipf.

    Each row draws its s from ``active`` with equal chances: ``plain(128)`` in d = 42 is the mixed sparsity of Chen
    et al. (2025), ``zipf=1`` the law of Ayonrinde (2024). Which s fire is a systematic sample in random order
    (Goodman and Kish 1950), of which both the size and every feature's probability are exact.
    """
    if not active or not all(1 <= s <= n for s in active):
        raise ValueError(f"active lists how many of {n} features fire on a row, each from 1 to {n}; got {active}.")
    share = torch.arange(1, n + 1, dtype=torch.float64) ** -zipf
    share /= share.sum()
    if (most := max(active) * float(share.max())) > 1 + 1e-9:
        raise ValueError(
            f"With zipf={zipf} and {max(active)} of {n} features on a row, the most frequent would fire {most:.2f} "
            "times on it, and once is the most; take a zipf nearer to 0, or fewer active."
        )

    def fire(rows: int, generator: Generator) -> Tensor:
        s = torch.tensor(active)[torch.randint(len(active), (rows, 1), generator=generator)]
        order = torch.rand(rows, n, generator=generator).argsort(1)
        # The probabilities lie end to end, s long in all; who covers a point of a grid of step 1 fires.
        start = torch.rand(rows, 1, dtype=torch.float64, generator=generator).clamp(1e-9, 1 - 1e-9)
        points = (start + s * share[order].cumsum(1)).floor()
        return torch.zeros(rows, n).scatter_(1, order, points.diff(dim=1, prepend=0 * start).float())

    frequency = share * (sum(active) / len(active))
    return Part([str(i) for i in range(n)], lambda d, g: _random(n, d, g), frequency.tolist(), fire)


def tree(
    parents: int = 3,
    children: int = 3,
    singles: int = 8,
    *,
    p_parent: float = 0.2,
    p_child: float = 0.2,
    p_single: float = 0.05,
    sibling_cosine: float = 0.3,
) -> Part:
    """Return parents, each before its children, which exclude each other and fire only with it; then singles.

    The 20 features of Costa et al. (2025). A child fires with ``p_child`` given its parent, which fires alone in
    the rest of its rows, as in the tree of Bussmann et al. (2025). A child is exactly orthogonal to its parent and
    has the cosine ``sibling_cosine`` with each sibling; all else is random.
    """
    if min(parents, children, singles) < 0 or not parents + singles or not 0 <= sibling_cosine <= 1:
        raise ValueError(
            "A tree has no count below 0, a parent or a single, and a sibling_cosine in 0..1; got "
            f"parents={parents}, children={children}, singles={singles}, sibling_cosine={sibling_cosine}."
        )

    def directions(d: int, generator: Generator) -> Tensor:
        frames = [_orthonormal(2 + children, d, generator) for _ in range(parents)]
        common, own = math.sqrt(sibling_cosine), math.sqrt(1 - sibling_cosine)
        families = [torch.cat([frame[:1], common * frame[1] + own * frame[2:]]) for frame in frames]
        return torch.cat([*families, _random(singles, d, generator)])

    names, above = [], []
    for i in range(parents):
        names += [f"parent {i}", *(f"child {i}.{j}" for j in range(children))]
        above += [-1, *[i * (1 + children)] * children]
    names += [f"single {i}" for i in range(singles)]
    above += [-1] * singles
    ways = torch.cat([torch.ones(1 + children, 1), torch.eye(1 + children)[:, 1:]], dim=1)
    family = ways, [p_parent * (1 - children * p_child), *[p_parent * p_child] * children]
    single = torch.ones(1, 1), [p_single]
    return Part(names, directions, *law(*[family] * parents, *[single] * singles), parent=above)


def circle(points: int | None = 7, *, p: float = 0.1) -> Part:
    """Return a circle, one feature of two dimensions that is not two of one dimension (Engels et al. 2024).

    With ``points`` it is so many features that exclude each other, at equal angles, as weekdays are. With None it
    is a uniform angle, and its two features are axes of its plane, with coefficients of either sign: any other
    axes of the plane are as good, so that :func:`recovery` of them means nothing. The radius has no spread.
    """
    if points is not None and points < 3:
        raise ValueError(f"A circle has at least 3 points, or None for all of it; got {points}.")

    def directions(d: int, generator: Generator) -> Tensor:
        plane = _orthonormal(2, d, generator)
        return plane if points is None else _on_circle(torch.arange(points) / points) @ plane

    ways = torch.ones(1, 2) if points is None else torch.eye(points)
    frequency, there = law((ways, [p / len(ways)] * len(ways)))

    def turned(rows: int, generator: Generator) -> Tensor:
        return there(rows, generator) * _on_circle(torch.rand(rows, generator=generator))

    if points is None:
        return Part(["cos", "sin"], directions, frequency, turned, spread=0.0)
    return Part([str(i) for i in range(points)], directions, frequency, there, spread=0.0)


def pair(values: int = 6, *, p: float = 0.2, ratio: float = 2.0) -> Part:
    """Return two attributes that come together, each with one of its values, the strong ``ratio`` times the weak.

    A dictionary too small for both keeps the strong attribute and loses the weak one: the feature occlusion of
    Makelov et al. (2024). With a single value each, the two would be one feature.
    """
    if values < 1 or ratio < 1:
        raise ValueError(f"values and ratio of a pair are at least 1, got {values} and {ratio}.")
    one = torch.eye(values)
    ways = torch.cat([one.repeat_interleave(values, 0), one.repeat(values, 1)], dim=1)
    return Part(
        [f"{attribute} {i}" for attribute in ("strong", "weak") for i in range(values)],
        lambda d, g: _random(2 * values, d, g),
        *law((ways, [p / len(ways)] * len(ways))),
        size=[1.5 * ratio] * values + [1.5] * values,
    )


def twins(*, p: float = 0.1, together: float = 0.95, cosine: float = 0.0) -> Part:
    """Return two features that are almost one, in when they fire or in where they point.

    ``twins(together=0.95)`` fire on nearly the same rows in directions of their own: what pairs features by their
    activations mistakes them, what pairs them by direction does not. ``twins(together=p, cosine=1.0)`` is one
    direction that two features use independently. Activations cannot tell those apart: of two latents there one is
    a duplicate, and of one latent only one of the features can be matched one to one. Each feature fires with
    probability ``p``, and with ``together`` when the other does.
    """
    if not -1 <= cosine <= 1:
        raise ValueError(f"The cosine of twins lies in -1..1, got {cosine}.")

    def directions(d: int, generator: Generator) -> Tensor:
        first, other = _orthonormal(2, d, generator)
        return torch.stack([first, cosine * first + math.sqrt(1 - cosine**2) * other])

    ways = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    apart = p * (1 - together)
    return Part(["first", "second"], directions, *law((ways, [p * together, apart, apart])))


def neurons(k: int = 1, *, p: float = 0.1, size: float = 2.5) -> Part:
    """Return one feature written in equal parts on ``k`` neurons, which are axes of the basis drawn at random.

    Among other features one neuron tells a feature with k = 1, while with k = 8 no single one does and the eight
    together do: what sparse probing tells apart (Gurnee et al. 2023).
    """

    def directions(d: int, generator: Generator) -> Tensor:
        if not 1 <= k <= d:
            raise ValueError(f"A feature is written on 1 to {d} (d) neurons, got k={k}.")
        return torch.zeros(1, d).index_fill_(1, torch.randperm(d, generator=generator)[:k], k**-0.5)

    return Part([f"on {k}"], directions, *law((torch.ones(1, 1), [p])), size=size)


def standard() -> dict[str, Part]:
    """Return one of everything: 111 features for a width of 64, with frequencies from 0.53 to 0.008."""
    return {
        "plain": plain(64, active=(1, 4), zipf=1.0),
        "tree": tree(),
        "circle": circle(),
        "ring": circle(None),
        "pair": pair(),
        "twins": twins(),
        "double": twins(together=0.1, cosine=1.0),
        "neuron": neurons(1, size=3.5),
        "superposed": neurons(8),
    }


@dataclass(frozen=True)
class Planted:
    """Activations and what they are made of."""

    acts: Float[Tensor, "row d"]
    """``codes @ world.directions + world.offset``, and the noise if there is any."""

    codes: Float[Tensor, "row feature"]
    """True coefficients, 0 where a feature is silent."""


class World:
    """A dictionary that is known, and endless rows of activations made with it.

    ``directions [feature, d]``, ``frequency [feature]``, ``parent [feature]`` (-1 for none), ``offset [d]`` and
    ``names`` are its truth, and ``groups`` says where each part lies on the feature axis. A part has random numbers
    of its own: worlds of one seed and width share the directions of the parts they share, and on rows of one seed
    their coefficients.

    Args:
        parts: What the world is made of, by name; :func:`standard` by default.
        d: Width of the activations. Features in more number than that are in superposition (Elhage et al. 2022).
        seed: Of the directions and the offset.
        noise: Standard deviation of Gaussian noise on every coordinate.
        offset: Length of a constant vector in every row, of random direction.

    >>> world = World({"plain": plain(128), "tree": tree()}, d=42, seed=0)
    >>> world.rows(5, seed=1).codes[:, world.groups["tree"]].shape
    torch.Size([5, 20])
    """

    def __init__(
        self,
        parts: Mapping[str, Part] | None = None,
        *,
        d: int = 64,
        seed: int = 0,
        noise: float = 0.0,
        offset: float = 0.0,
    ) -> None:
        parts = standard() if parts is None else parts
        if not parts or d < 1 or min(noise, offset) < 0:
            raise ValueError(
                "A world has at least one part, a width d of at least 1, and no negative noise or offset; "
                f"got {len(parts)} parts, d={d}, noise={noise}, offset={offset}."
            )
        self.parts, self.d, self.seed, self.noise = dict(parts), d, int(seed), noise
        self.groups: dict[str, slice] = {}
        self.names: list[str] = []
        parent: list[int] = []
        for name, part in self.parts.items():
            first = len(self.names)
            self.names += [f"{name} {feature}" for feature in part.names]
            self.groups[name] = slice(first, len(self.names))
            parent += [first + i if i >= 0 else -1 for i in part.parent or [-1] * len(part.names)]
        self.parent = torch.tensor(parent)
        self.frequency = torch.tensor([p for part in self.parts.values() for p in part.frequency])
        self.directions = torch.cat([part.directions(d, self._generator(n)) for n, part in self.parts.items()])
        self.offset = offset * _random(1, d, self._generator("", "offset"))[0]

    def rows(self, n: int, *, seed: int | tuple[int, ...]) -> Planted:
        """Draw ``n`` rows; the same arguments give the same rows, other seeds independent ones."""
        if n < 1:
            raise ValueError(f"A world gives at least 1 row at a time, got {n}.")
        path = [int(part) for part in (seed if isinstance(seed, tuple) else (seed,))]
        codes = torch.cat([_codes(part, n, self._generator(name, *path)) for name, part in self.parts.items()], dim=1)
        acts = codes @ self.directions + self.offset
        if self.noise:
            acts += self.noise * torch.randn(acts.shape, generator=self._generator("", "noise", *path))
        return Planted(acts, codes)

    def batches(self, size: int, *, seed: int) -> Iterator[Float[Tensor, "batch d"]]:
        """Yield activations without end; batch i is ``rows(size, seed=(seed, i)).acts``, counted from 0."""
        return (self.rows(size, seed=(seed, i)).acts for i in count())

    def to_frame(self) -> pd.DataFrame:
        """Return one row per feature: its name, group, frequency and parent."""
        groups = [name for name, part in self.parts.items() for _ in part.names]
        truth = {"frequency": self.frequency.numpy(), "parent": self.parent.numpy()}
        return pd.DataFrame({"name": self.names, "group": groups, **truth})

    def _generator(self, *path: str | int) -> Generator:
        # A stream of its own for every use; hashed, since torch looks at 32 bits of a seed only.
        digest = hashlib.sha256(repr((self.seed, *path)).encode()).digest()
        return Generator().manual_seed(int.from_bytes(digest[:4], "little"))


@dataclass(frozen=True)
class Recovery:
    """How well a dictionary found the true directions."""

    best: Float[Tensor, " feature"]
    """Cosine of each true feature with the latent closest to it."""

    matched: Float[Tensor, " feature"]
    """Cosine with the feature's own latent, no latent belonging to two; 0 where there are not enough latents."""

    latent: Int[Tensor, " feature"]
    """Which latent that is; -1 where there is none."""

    @property
    def mcc(self) -> float:
        """The mean of ``matched``: with ``signed=False`` the mean correlation coefficient of SynthSAEBench (2026)."""
        return float(self.matched.mean())

    def rate(self, tau: float = 0.9) -> float:
        """Return the share of features whose ``best`` exceeds ``tau``: the recovery rate of Chen et al. (2025)."""
        return float((self.best > tau).float().mean())


def recovery(
    directions: Float[Tensor, "feature d"], W_dec: Float[Tensor, "latent d"], *, signed: bool = True
) -> Recovery:
    """Compare the directions of a dictionary, of any lengths, with the true ones, or with another seed's.

    Args:
        directions: True directions, such as ``world.directions`` or the part of them that matters.
        W_dec: What was found, one direction a row.
        signed: Count a direction found backwards as not found, since latents do not fire negatively.
    """
    both = directions, W_dec
    tables = all(v.ndim == 2 and v.numel() and v.isfinite().all() for v in both)
    if not tables or directions.shape[1] != W_dec.shape[1]:
        raise ValueError(
            "recovery compares finite directions [feature, d] with [latent, d], one in each row and of the same d; got "
            f"{tuple(directions.shape)} and {tuple(W_dec.shape)}, where NaN and infinity are not allowed either."
        )
    true, found = (F.normalize(v.detach().cpu().double(), dim=-1) for v in both)
    cosines = true @ found.T if signed else (true @ found.T).abs()
    features, latents = map(torch.from_numpy, linear_sum_assignment(cosines.numpy(), maximize=True))
    matched = torch.zeros(len(true), dtype=torch.float64).index_copy_(0, features, cosines[features, latents])
    latent = torch.full((len(true),), -1).index_copy_(0, features, latents)
    return Recovery(cosines.max(dim=1).values.float(), matched.float(), latent)


def _on_circle(turns: Tensor) -> Tensor:
    """Return the points [turn, 2] of the unit circle at angles given in whole turns."""
    return torch.stack([torch.cos(2 * math.pi * turns), torch.sin(2 * math.pi * turns)], dim=-1)


def _codes(part: Part, n: int, generator: Generator) -> Tensor:
    fires = part.fire(n, generator)
    return fires * (torch.tensor(part.size) + part.spread * torch.randn(fires.shape, generator=generator)).abs()


def _random(n: int, d: int, generator: Generator) -> Tensor:
    return F.normalize(torch.randn(n, d, generator=generator), dim=-1)


def _orthonormal(n: int, d: int, generator: Generator) -> Tensor:
    """Return ``n`` random orthonormal directions."""
    if n > d:
        raise ValueError(f"This part needs {n} orthogonal directions, more than there are in d={d}; take a larger d.")
    q, r = torch.linalg.qr(torch.randn(d, n, dtype=torch.float64, generator=generator))
    return (q * r.diagonal().sign()).T.float()  # without the signs, they would not be uniform
