"""A corpus of latent binary concepts, and a next-token model that makes directions of them (Jiang et al. 2024).

Concepts take the values 0 and 1 by a directed acyclic graph. Their state is what the context says, one context
token per state, and the next token is drawn by a softmax over one token per state, whose logit is ``sharpness``
for each concept that it has in common with the state and its negative for each other. The log-odds of a concept
are so a matter of that concept alone, and a model that matches them with small weights makes it one direction.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.geometry.toys.fit import fit, seeded


class Concepts:
    """Concepts, their graph, and the corpora that they write.

    ``table [token, concept]`` is the truth: the concepts of each token. ``independent [concept, concept]`` is true
    for two concepts that have no ancestor in common and of which none is the other's.

    Args:
        parents: For each concept, the earlier ones of which it copies one, drawn anew; or else it is a coin.
        coupling: How often a concept with parents copies one.
        sharpness: How much the logit of a token says of each concept.

    >>> Concepts([[], [], [0, 1]]).table.shape
    torch.Size([8, 3])
    """

    def __init__(
        self,
        parents: Sequence[Sequence[int]] = ((), (), (), (0,), (0, 1)),
        *,
        coupling: float = 0.6,
        sharpness: float = 0.5,
    ) -> None:
        if not parents or any(not 0 <= p < i for i, above in enumerate(parents) for p in above):
            raise ValueError(f"Parents of a concept are earlier concepts, counted from 0; got {list(parents)}.")
        if not 0 <= coupling <= 1 or sharpness <= 0:
            raise ValueError(f"coupling lies in 0..1 and sharpness above 0, got {coupling} and {sharpness}.")
        self.parents, self.coupling, self.sharpness = [list(above) for above in parents], coupling, sharpness
        self.table = torch.arange(2 ** len(parents))[:, None] >> torch.arange(len(parents)) & 1
        origin = torch.eye(len(parents), dtype=torch.bool)  # [concept, ancestor or itself]
        for i, above in enumerate(self.parents):
            for p in above:
                origin[i] |= origin[p]
        self.independent = ~(origin[:, None] & origin[None]).any(2)

    def corpus(self, pairs: int, *, seed: int, shuffle: bool = False) -> Int[Tensor, "pair 2"]:
        """Draw context and next token of so many places; ``shuffle`` deals the next tokens out anew, the control."""
        with seeded(seed) as generator:
            state = torch.randint(2, (pairs, len(self.parents)), generator=generator)
            for i, above in enumerate(self.parents):
                if above:
                    one = torch.tensor(above)[torch.randint(len(above), (pairs,), generator=generator)]
                    copies = torch.rand(pairs, generator=generator) < self.coupling
                    state[:, i] = torch.where(copies, state.gather(1, one[:, None])[:, 0], state[:, i])
            # The softmax over all states is one coin per concept: whether the token has it as the state has.
            same = torch.sigmoid(torch.tensor(2.0 * self.sharpness))
            token = torch.where(torch.rand(state.shape, generator=generator) < same, state, 1 - state)
            places = 2 ** torch.arange(len(self.parents))
            context, following = state @ places, token @ places
            if shuffle:
                following = following[torch.randperm(pairs, generator=generator)]
        return torch.stack([context, following], dim=1)


def learn_tokens(
    corpus: Int[Tensor, "pair 2"], tokens: int, *, d: int = 32, steps: int = 600, seed: int = 0
) -> Float[Tensor, "token d"]:
    """Train a next-token model, a vector per context and one per token, and return the vectors of the tokens.

    The weights begin small, and a penalty on their squares keeps them so: what the corpus does not ask for is not
    there. All of the corpus is one batch, as counts.
    """
    if not len(corpus) or int(corpus.min()) < 0 or int(corpus.max()) >= tokens:
        raise ValueError(f"A corpus has at least 1 pair, of tokens from 0 to {tokens - 1}; got {len(corpus)} pairs.")
    with seeded(seed):
        contexts, vectors = (nn.Parameter(0.1 * torch.randn(tokens, d)) for _ in range(2))
    counts = torch.bincount(corpus[:, 0] * tokens + corpus[:, 1], minlength=tokens**2).view(tokens, tokens)
    share = counts.float() / len(corpus)

    def loss() -> Tensor:
        penalty = contexts.square().sum() + vectors.square().sum()
        return 3e-4 * penalty - (share * (contexts @ vectors.T).log_softmax(1)).sum()

    fit([contexts, vectors], loss, steps=steps, lr=1e-2)
    return vectors.detach()
