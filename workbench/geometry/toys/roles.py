"""Words that play roles, and a network that may or may not learn that (Laurent et al. 2023).

Each class of documents has a pattern of roles; a document is a pattern with each role filled by one of its words,
drawn with Zipf frequencies. A network that gives each word a vector, and reads the class off the vectors in order,
need only know a word's role. *Feature collapse* is that words of a role come to share one vector.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.geometry.toys.fit import fit, seeded

ROLES, WORDS, CLASSES, LENGTH, D = 4, 25, 40, 5, 16
"""Roles; words in each; classes, each with a pattern of its own; words in a document; width of a word's vector."""


@dataclass(frozen=True)
class Words:
    """What a network has learned of each word."""

    vectors: Float[Tensor, "word d"]
    """As the classifier reads them: after the layer norm where there is one."""

    role: Int[Tensor, " word"]
    """The truth."""

    frequency: Float[Tensor, " word"]
    """How often each word occurs; sums to 1."""

    rank: Int[Tensor, " word"]
    """Place in its role by frequency, from 0 for the most frequent."""

    accuracy: float
    """Share of new documents whose class the network tells."""


def learn_words(*, norm: bool, zipf: float = 1.0, steps: int = 1000, seed: int = 0) -> Words:
    """Train a network to tell the class of documents, and return what it has learned of the words.

    Weights are kept small by a penalty on their squares, which is what lets words of a role meet. The word vectors
    under a layer norm, which their length does not reach, are free of it.

    Args:
        norm: Whether a layer norm, without parameters, stands between the word vectors and the classifier.
        zipf: Frequencies of the words of a role are ∝ rank ** -zipf; 0 for equal ones.
        steps: Of training.
        seed: Of everything.
    """
    if zipf < 0 or steps < 0:
        raise ValueError(f"zipf and steps are not negative, got {zipf} and {steps}.")
    with seeded(seed) as generator:
        numbers = torch.randperm(ROLES**LENGTH, generator=generator)[:CLASSES]
        patterns = numbers[:, None] // ROLES ** torch.arange(LENGTH) % ROLES
        share = torch.arange(1, WORDS + 1).double() ** -zipf
        table = nn.Parameter(0.1 * torch.randn(ROLES * WORDS, D))
        classifier = nn.Linear(LENGTH * D, CLASSES)

    def vectors() -> Tensor:
        return nn.functional.layer_norm(table, (D,)) if norm else table

    def draw(rows: int) -> tuple[Tensor, Tensor]:
        of = torch.randint(CLASSES, (rows,), generator=generator)
        drawn = torch.multinomial(share, rows * LENGTH, replacement=True, generator=generator)
        return patterns[of] * WORDS + drawn.view(rows, LENGTH), of

    def loss() -> Tensor:
        document, of = draw(256)
        penalty = classifier.weight.square().sum() + (0 if norm else table.square().sum())
        return nn.functional.cross_entropy(classifier(vectors()[document].flatten(1)), of) + 5e-4 * penalty

    fit([table, *classifier.parameters()], loss, steps=steps, lr=1e-2)
    with torch.no_grad():
        document, of = draw(4000)
        right = classifier(vectors()[document].flatten(1)).argmax(1) == of
        rank, role = torch.arange(WORDS).repeat(ROLES), torch.arange(ROLES).repeat_interleave(WORDS)
        frequency = (share / share.sum() / ROLES).float()[rank]
        return Words(vectors().clone(), role, frequency, rank, float(right.float().mean()))
