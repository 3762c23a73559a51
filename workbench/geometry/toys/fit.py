"""What every toy shares: a seed that leaves the global one alone, a ReLU network, and one loop."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn


@dataclass(frozen=True)
class Learned:
    """What a network has learned, for the measures of the room."""

    acts: Float[Tensor, "row d"]
    """Its representation of each input, or of each word."""

    labels: Int[Tensor, " row *label"]
    """The truth: features of an input, or the role of a word."""

    weight: Float[Tensor, " row"]
    """How often each row occurs; sums to 1."""

    right: Callable[[Tensor], Tensor]
    """The rest of the network: which answers to new inputs it gets right from representations like ``acts``."""

    @property
    def accuracy(self) -> Float[Tensor, " *label"]:
        """Share of new inputs that the network gets right, of each feature where there are several."""
        return self.retest(self.acts)

    @torch.no_grad()
    def retest(self, acts: Float[Tensor, "row d"]) -> Float[Tensor, " *label"]:
        """Return the same with other representations in the place of the network's own."""
        return self.right(acts).float().mean(0)


@contextmanager
def seeded(seed: int) -> Iterator[Generator]:
    """Build networks from ``seed`` inside the block, and give a generator of it for everything else."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield Generator().manual_seed(seed + 1)


def relu_network(*widths: int) -> nn.Sequential:
    """Return a network with a ReLU after every layer but the last."""
    layers = [nn.Linear(d_in, d_out) for d_in, d_out in pairwise(widths)]
    return nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])


def fit(
    parameters: Iterable[nn.Parameter], loss: Callable[[], Tensor], *, steps: int, lr: float, sgd: bool = False
) -> None:
    """Minimise ``loss()`` by Adam, or by gradient descent with momentum; the rate falls to 0 along a half cosine."""
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9) if sgd else torch.optim.Adam(parameters, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        schedule.step()
