"""Independent binary features that a network must all answer, and learns unequally (Lampinen et al. 2024).

Each is a function of bits of its own, so that they are independent and equally needed; they differ by what
:class:`Feature` says and by the order in which a transformer answers them. One can explain many times the variance
of another that is answered as well, and without either its answer is lost: variance explained says nothing of use.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from workbench.geometry.toys.fit import Learned, fit, relu_network, seeded

BITS = {"mlp": 13, "transformer": 3}
"""Width of a block; odd, so that most of its bits are either on or off."""


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What there is to learn, and how it is taught."""

    complexity: Literal["linear", "xor", "sum_mod"] = "linear"
    """Of its bits: whether most are on; the first two, exclusive or; the sum of the first three, modulo 2."""

    prevalence: float = 1.0
    """Share of the training examples, above 0, on which it is asked."""

    pretrained: bool = False
    """Whether it is learned first, for as many steps as then all are together at a third of the rate."""


def learn_features(
    features: Sequence[Feature],
    *,
    network: Literal["mlp", "transformer"] = "mlp",
    steps: int = 500,
    rows: int = 2000,
    seed: int = 0,
) -> Learned:
    """Train a network to answer ``features`` in the order given, and return what it makes of ``rows`` new inputs.

    That is the last hidden layer of an MLP, or the one vector from which a transformer's decoder answers all.

    >>> learn_features([Feature(), Feature(complexity="xor")], steps=2, rows=7).labels.shape
    torch.Size([7, 2])
    """
    if not features or not all(0 < feature.prevalence <= 1 for feature in features) or network not in BITS:
        raise ValueError(
            f"There is at least one feature, each with a prevalence above 0 and at most 1, and a network of "
            f"{list(BITS)}; got {[feature.prevalence for feature in features]} and {network!r}."
        )
    with seeded(seed) as generator:
        size = BITS[network] * len(features)
        net = _Mlp(size, len(features)) if network == "mlp" else _Transformer(size, len(features))
    asked = torch.tensor([feature.prevalence for feature in features])
    first = torch.tensor([feature.pretrained for feature in features])

    def loss(taught: Tensor) -> Tensor:
        bits, y = _draw(features, BITS[network], 256 if network == "mlp" else 64, generator)
        counts = taught & (torch.rand(y.shape, generator=generator) < asked)
        each = nn.functional.binary_cross_entropy_with_logits(net.answer(net(bits), y), y.float(), reduction="none")
        return (each * counts).mean()

    sgd, rate = (True, 0.1) if network == "mlp" else (False, 3e-3)
    for taught in [first, torch.ones_like(first)] if first.any() else [~first]:
        lr = rate if taught is first or not first.any() else rate / 3
        fit(net.parameters(), lambda taught=taught: loss(taught), steps=steps, lr=lr, sgd=sgd)
    with torch.no_grad():
        bits, y = _draw(features, BITS[network], rows, generator)
        acts = net(bits)
    return Learned(acts, y, torch.full((rows,), 1 / rows), right=lambda acts: (net.answer(acts, y) > 0) == y)


def _draw(features: Sequence[Feature], width: int, rows: int, generator: Generator) -> tuple[Tensor, Tensor]:
    bits = torch.randint(2, (rows, len(features), width), generator=generator)
    truth = {
        "linear": lambda block: (2 * block.sum(1) > width).long(),
        "xor": lambda block: block[:, :2].sum(1) % 2,
        "sum_mod": lambda block: block[:, :3].sum(1) % 2,
    }
    y = [truth[feature.complexity](bits[:, i]) for i, feature in enumerate(features)]
    return bits.flatten(1), torch.stack(y, dim=1)


class _Mlp(nn.Module):
    def __init__(self, size: int, outputs: int) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(relu_network(size, 256, 256), nn.ReLU()), nn.Linear(256, outputs)

    def forward(self, bits: Tensor) -> Tensor:
        return self.body(2.0 * bits - 1)

    def answer(self, acts: Tensor, y: Tensor) -> Tensor:
        return self.head(acts)


class _Transformer(nn.Module):
    """An encoder whose mean is all that the decoder, which answers in turn and is told the truth so far, sees."""

    def __init__(self, size: int, outputs: int) -> None:
        super().__init__()
        d, options = 32, {"dropout": 0.0, "batch_first": True, "norm_first": True}
        self.embed = nn.Embedding(5, d)  # a bit off or on, the beginning of the answers, an answer no or yes
        self.place = nn.Parameter(0.5 * torch.randn(size + outputs, d))
        self.encoder = nn.TransformerEncoderLayer(d, 4, 4 * d, **options)
        self.decoder = nn.TransformerDecoderLayer(d, 4, 4 * d, **options)
        self.head = nn.Linear(d, 1)
        self.mask = torch.full((outputs, outputs), -torch.inf).triu(1)

    def forward(self, bits: Tensor) -> Tensor:
        return self.encoder(self.embed(bits) + self.place[: bits.shape[1]]).mean(1)

    def answer(self, acts: Tensor, y: Tensor) -> Tensor:
        told = torch.cat([torch.full_like(y[:, :1], 2), y[:, :-1] + 3], dim=1)
        queries = self.embed(told) + self.place[-y.shape[1] :]
        return self.head(self.decoder(queries, acts[:, None], tgt_mask=self.mask))[..., 0]
