"""Words that play roles, and a network that may or may not learn that (Laurent et al. 2023).

Each class of documents has a pattern of roles; a document is a pattern with each role filled by one of its words,
drawn with Zipf frequencies. A network that gives each word a vector, and reads the class off the vectors in order,
need only know a word's role. *Feature collapse* is that words of a role come to share one vector.
"""

import torch
from torch import Tensor, nn

from workbench.geometry.toys.fit import Learned, fit, seeded

ROLES, WORDS, CLASSES, LENGTH, D = 4, 25, 40, 5, 16
"""Roles; words in each; classes, each with a pattern of its own; words in a document; width of a word's vector."""


def learn_words(*, norm: bool, zipf: float = 1.0, steps: int = 1000, seed: int = 0) -> Learned:
    """Train a network to tell the class of documents, and return its vector for each word, as the classifier reads it.

    Weights are kept small by a penalty on their squares, which is what lets words of a role meet. The word vectors
    under a layer norm, which their length does not reach, are free of it: with ``norm``, one without parameters
    stands before the classifier. Frequencies of the words of a role are ∝ rank ** -``zipf``.
    """
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
        frequency = (share / share.sum() / ROLES).float().repeat(ROLES)
        role = torch.arange(ROLES).repeat_interleave(WORDS)
        return Learned(vectors().clone(), role, right.float().mean(), frequency)
