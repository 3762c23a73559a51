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

DECAY = 5e-4
"""What the sum of all squared weights is multiplied with in the loss; it keeps them small."""


def learn_words(*, norm: bool, zipf: float = 1.0, steps: int = 1000, seed: int = 0) -> Learned:
    """Train a network to tell the class of documents, and return its vector for each word, as the classifier reads it.

    A penalty on their squares keeps all weights small, and shortens the vectors of rare words most: these point the
    way of their role and do not reach it. To a layer norm length is nothing: with ``norm``, one without parameters
    stands before the classifier, and nothing else differs. Words of a role have frequencies ∝ rank ** -``zipf``.
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
        penalty = classifier.weight.square().sum() + table.square().sum()
        return nn.functional.cross_entropy(classifier(vectors()[document].flatten(1)), of) + DECAY * penalty

    fit([table, *classifier.parameters()], loss, steps=steps, lr=1e-2)
    document, of = draw(4000)
    frequency = (share / share.sum() / ROLES).float().repeat(ROLES)
    role = torch.arange(ROLES).repeat_interleave(WORDS)
    return Learned(
        vectors().detach().clone(),
        role,
        frequency,
        right=lambda acts: classifier(acts[document].flatten(1)).argmax(1) == of,
    )
