"""Baselines: directions computed from a sample, or drawn at random, behind the ``encode`` and ``decode`` of all.

A dictionary was worth its training where it does what these cannot, with as many features active. One more control is
trained as usual: a dictionary whose decoder is ``frozen``, see ``Linear``.
"""

from abc import ABC, abstractmethod
from copy import copy
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import Unpack, override

from workbench.dictionaries import sparse
from workbench.dictionaries.dictionary import Common, Loss
from workbench.dictionaries.inputs import Batch
from workbench.dictionaries.linear import places
from workbench.dictionaries.tied import Tied

ITERATIONS = 1000
"""When scikit-learn gives up a fit that does not converge, and says so."""

STARTS = 2
"""Of which ICA takes the better."""

OF_NORMAL = 0.374567
"""The mean of log cosh of a standard normal number, from which FastICA's contrast is measured."""


class Fitted(Tied, ABC):
    """A dictionary that ``initialise`` fits to a sample, some thousands of activations; there is nothing to train.

    With all features active, codes are the method's own. With ``k`` of them, all methods encode alike, so that what
    is compared is directions: a pursuit picks one feature after another, each time the one that removes most of what
    is left, and then these ``k`` get the values that rebuild best. For orthogonal directions those are the largest
    projections. It costs ``k`` products; ``sparser`` gives another ``k`` without another fit.

    Args:
        d_in: Width of the activations.
        n_features: How many features.
        k: How many are active on an activation, at most; all of them by default.
        shared: As for every dictionary of one site, see ``Tied``.
    """

    signed = True
    """Whether codes may be negative."""

    def __init__(
        self,
        d_in: int,
        n_features: int,
        *,
        k: int | None = None,
        **shared: Unpack[Common],
    ) -> None:
        super().__init__(d_in, n_features, **shared)
        self.k = places(n_features if k is None else k, n_features)
        self.W_enc = nn.Parameter(self.W_dec.detach().clone())
        """[n_features, d_in]: the pseudoinverse of ``W_dec``, transposed; its codes are those of least squares."""

    @abstractmethod
    def _fit(self, x: Tensor) -> Tensor:
        """Return directions [n_features, d], of any length, for a sample [batch, d] in units, but not centred."""

    def _codes(self, v: Tensor) -> Tensor:
        """Return the method's own codes of ``v``, which are to rebuild it as ``codes @ W_dec``."""
        return v @ self.W_enc.T

    def _values(self, v: Tensor, indices: Tensor) -> Tensor:
        """Return the codes with which the features ``indices`` alone come closest to ``v``."""

        def best(v: Tensor, indices: Tensor) -> Tensor:
            rows = F.embedding(indices, self.W_dec)  # (batch, k, d)
            # The ridge is for rows that depend on each other, and too small to be seen where they do not.
            gram = rows @ rows.mT + 1e-6 * torch.eye(rows.shape[1]).to(rows)
            return torch.linalg.solve(gram, torch.linalg.vecdot(rows, v[:, None]))

        size = max(1, sparse.BUFFER // (indices.shape[1] * self.d_in))
        return torch.cat([best(*part) for part in zip(v.split(size), indices.split(size), strict=True)])

    @property
    @override
    def options(self) -> dict[str, Any]:
        return {"k": self.k}

    def sparser(self, k: int) -> "Fitted":
        """Return a dictionary of the same weights, shared, with another ``k``."""
        twin = copy(self)
        twin.k = places(k, self.n_features)
        return twin

    @override
    @torch.no_grad()
    def initialise(self, sample: Batch) -> None:
        super().initialise(sample)
        self.initialised.fill_(False)  # the fit may yet refuse the sample
        x, _ = self.pair(sample)
        W_dec = F.normalize(self._fit(x.cpu().double() * float(self.scale_in)), dim=-1)
        self.W_dec.copy_(W_dec)
        self.W_enc.copy_(torch.linalg.pinv(W_dec).T)
        self.initialised.fill_(True)
        self.requires_grad_(False)

    @override
    def _activate(self, u: Tensor, *, training: bool) -> tuple[Tensor, Tensor]:
        v = u - self.b_dec
        if self.k == self.n_features:
            codes = self._codes(v)
            return codes, torch.arange(self.k, device=u.device).expand(codes.shape)
        indices = self._pursued(v)
        return self._values(v, indices), indices

    @torch.no_grad()
    def _pursued(self, v: Tensor) -> Tensor:
        """Return [batch, k] features, each of them the one that removes most of what the earlier ones left."""
        picked = torch.zeros(len(v), self.n_features, dtype=torch.bool, device=v.device)
        indices = []
        for _ in range(self.k):
            z = v @ self.W_dec.T
            best = (z.abs() if self.signed else z).masked_fill(picked, -torch.inf).argmax(1, keepdim=True)
            v = v - z.gather(1, best) * self.W_dec[best[:, 0]]
            picked.scatter_(1, best, True)
            indices.append(best)
        return torch.cat(indices, 1)

    @override
    def loss(self, x: Tensor, y: Tensor, *, dead: Tensor) -> Loss:
        raise TypeError(f"{type(self).__name__} is fitted, not trained: initialise(sample) is all there is to do.")


@final
class PCA(Fitted):
    """The orthogonal directions along which the sample varies most, in that order (Pearson 1901).

    With all of them active no other ``n_features`` directions leave less of its variance. None of them need be a
    feature: features are found so only where they are orthogonal and differ in power.

    Args:
        d_in: Width of the activations.
        n_features: How many components, at most as many as the sample has dimensions.
        shared: As for every fitted dictionary, see ``Fitted``.

    >>> dictionary = PCA(8, 8, k=2)
    >>> dictionary.initialise(torch.randn(100, 8))
    >>> dictionary.encode(torch.ones(3, 8)).l0
    tensor(2.)
    """

    @override
    def _fit(self, x: Tensor) -> Tensor:
        x = x - x.mean(0)
        refuse_more_than_there_are(self, x)
        _, axes = torch.linalg.eigh(x.T @ x)
        return turned(axes.T.flip(0)[: self.n_features], x)


@final
class ICA(Fitted):
    """Directions whose codes are as independent as can be, by FastICA (Hyvärinen and Oja 2000).

    It finds independent features at whatever angles, as long as there are no more of them than dimensions: not in
    superposition. All its components together leave what those of ``PCA`` leave.

    Args:
        d_in: Width of the activations.
        n_features: How many components, at most as many as the sample has dimensions.
        shared: As for every fitted dictionary, see ``Fitted``.
    """

    @override
    def _fit(self, x: Tensor) -> Tensor:
        from sklearn.decomposition import FastICA  # not at the top: it would load with every dictionary

        x = x - x.mean(0)
        refuse_more_than_there_are(self, x)
        # At the usual tolerance it takes a saddle, where two or three features are mixed, for the end; now and then at
        # this one too, from one start in some hundreds. There the parts are nearer to normal than those of another.
        fits: list[tuple[float, Tensor]] = []
        for start in range(STARTS):
            seed = (STARTS * self.seed + start) % 2**32  # none that another dictionary's seed begins with too
            fast = FastICA(self.n_features, whiten="unit-variance", max_iter=ITERATIONS, tol=1e-6, random_state=seed)
            parts = torch.from_numpy(fast.fit_transform(x.numpy()))
            contrast = (parts.cosh().log().mean(0) - OF_NORMAL).square().sum()
            fits.append((float(contrast), torch.from_numpy(fast.mixing_).T))
        return turned(max(fits, key=lambda fit: fit[0])[1], x)


@final
class Random(Fitted):
    """Directions drawn at random, in any number: a control, which knows the mean of the sample and no more.

    A stronger one than a dictionary before its training, since its codes are those of a pursuit and of either sign.

    Args:
        d_in: Width of the activations.
        n_features: How many directions.
        shared: As for every fitted dictionary, see ``Fitted``.
    """

    @override
    def _fit(self, x: Tensor) -> Tensor:
        return self.W_dec.cpu().double()


@final
class Neurons(Fitted):
    """The axes of the activations as they are: a control, in which a neuron, or a channel, is a feature.

    Args:
        d_in: Width of the activations.
        n_features: How many axes, from the first on; as many as ``d_in`` leave nothing out.
        shared: As for every fitted dictionary, see ``Fitted``.
    """

    @override
    def _fit(self, x: Tensor) -> Tensor:
        if self.n_features > self.d_in:
            raise ValueError(f"Activations of width {self.d_in} have as many axes, got n_features={self.n_features}.")
        return torch.eye(self.d_in, dtype=x.dtype)[: self.n_features]


@final
class NMF(Fitted):
    """Factors of which nothing is ever subtracted: ``x ≈ codes @ W_dec``, all three without negative numbers.

    Of what leaves the rectifier of an MLP this is Deep Feature Factorization (Collins et al. 2018, arXiv 1806.10206).
    For texts ``x [doc, pos, d_in]``, ``encode(x).dense()[..., i]`` is the map [doc, pos] of factor ``i``, which shows
    where in all of them the same thing is; a fit of more factors shows its parts. There is no bias: factors add up
    from zero. The fit is scikit-learn's, by coordinate descent (Cichocki and Phan 2009), and codes are least squares
    without negative values, by an accelerated gradient (Beck and Teboulle 2009).

    Args:
        d_in: Width of the activations.
        n_features: How many factors.
        shared: As for every fitted dictionary, see ``Fitted``.
    """

    signed = False

    @override
    def _fit(self, x: Tensor) -> Tensor:
        from sklearn.decomposition import NMF as Factorisation

        if negative := int((x < 0).any(1).sum()):
            raise ValueError(
                f"NMF takes activations without negative numbers, and {negative} of these {len(x)} have some. Record "
                "behind a rectifier, rectify them with x.relu(), or shift them to x - x.amin(0)."
            )
        self.centre_in.zero_()
        self.centre_out.zero_()
        factors = Factorisation(self.n_features, max_iter=ITERATIONS, random_state=self.seed)  # pyright: ignore[reportArgumentType]
        return torch.from_numpy(factors.fit(x.numpy()).components_)

    @override
    def _codes(self, v: Float[Tensor, "batch d_in"], *, within: Tensor | float = 1.0) -> Tensor:
        gram, target = self.W_dec @ self.W_dec.T, v @ self.W_dec.T
        rate = 1 / torch.linalg.matrix_norm(gram, 2)
        codes = ahead = super()._codes(v).relu() * within
        momentum = 1.0
        for _ in range(200):  # leaves less than a thousandth of the variance more than the exact solution does
            before, codes = codes, (ahead + rate * (target - ahead @ gram)).relu() * within
            last, momentum = momentum, 0.5 + (0.25 + momentum**2) ** 0.5
            ahead = codes + (last - 1) / momentum * (codes - before)
        return codes

    @override
    def _values(self, v: Tensor, indices: Tensor) -> Tensor:
        within = v.new_zeros(len(v), self.n_features).scatter_(1, indices, 1.0)
        return self._codes(v, within=within).gather(1, indices)


def refuse_more_than_there_are(dictionary: Tied, x: Float[Tensor, "batch d_in"]) -> None:
    """Raise if the sample ``x``, of mean zero, has fewer dimensions than the dictionary has features."""
    rank = int(torch.linalg.matrix_rank(x.T @ x, rtol=1e-12, hermitian=True))  # below is the rounding of float32
    if dictionary.n_features > rank:
        raise ValueError(
            f"{type(dictionary).__name__} finds no more components than its sample has dimensions, here {rank} in "
            f"{len(x)} activations of width {dictionary.d_in}; got n_features={dictionary.n_features}. "
            "Ask for fewer, or give more activations."
        )


def turned(W: Float[Tensor, "n_features d"], x: Float[Tensor, "batch d"]) -> Float[Tensor, "n_features d"]:
    """Return directions turned so that the codes of ``x`` have their longer tail on the positive side.

    Neither method knows one end of a component from the other. A feature that is mostly silent has one tail.
    """
    tail = (x @ torch.linalg.pinv(W)).pow(3).sum(0)
    return torch.where(tail[:, None] < 0, -W, W)
