"""Write the weights of a transformer in terms of directions of its residual stream."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.circuits.known.known import Part
from workbench.models import Site, TransformerBridge, from_weights

EXACT = 256
"""Scores of 256 beside 128 leave a softmax of exactly 1 and 0 in single precision."""
EMBED = Part(Site(0, "resid_pre"))

Directions = Float[Tensor, "n d_model"]


class Wiring:
    """A transformer being wired; its stream is cut into spaces, each some orthogonal directions.

    Every word and every position writes its own direction, in the spaces "token" and "position". Where attention
    matches it scores ``sharpness``. ``turned`` turns all directions out of the axes, by a Hadamard matrix, which
    rounds nothing.
    """

    def __init__(
        self,
        words: Sequence[str],
        layers: int,
        heads: int,
        spaces: Mapping[str, int],
        *,
        positions: int = 8,
        neurons: int = 0,
        sharpness: float | int = EXACT,
        turned: bool = False,
    ) -> None:
        if sharpness <= 0:
            raise ValueError(f"sharpness must be more than 0 (8 is soft, 256 exact), got {sharpness}.")
        self.words, self.sharpness = ["<bos>", *words], sharpness
        spaces = {"token": len(self.words), "position": positions, **spaces}
        basis = _hadamard(64) if turned else torch.eye(sum(spaces.values()))
        d = len(basis)
        *directions, self.unused = basis.split([*spaces.values(), d - sum(spaces.values())])
        self._spaces = dict(zip(spaces, directions, strict=True))
        shapes = {"W_Q": (heads, d, 64), "W_K": (heads, d, 64), "W_V": (heads, d, 64), "W_O": (heads, 64, d)}
        shapes |= {"b_Q": (heads, 64)}
        shapes |= {"W_in": (d, neurons), "W_out": (neurons, d), "b_in": (neurons,)} if neurons else {}
        self.weights = {name: torch.zeros(layers, *shape) for name, shape in shapes.items()}
        self.weights |= {"W_E": self["token"], "W_pos": self["position"], "W_U": torch.zeros(d, len(self.words))}

    def __getitem__(self, space: str) -> Directions:
        """Return the directions of a space."""
        return self._spaces[space]

    def of(self, words: Sequence[str]) -> Directions:
        """Return the directions that words write."""
        return self["token"][[self.words.index(word) for word in words]]

    def head(
        self, layer: int, head: int, query: Directions, key: Directions, read: Tensor, write: Float[Tensor, "m d_model"]
    ) -> Part:
        """Attend where what is along ``key`` matches one's own along ``query``; move what is along ``read`` there.

        A place scores the sum of products times ``sharpness``, the first token half of ``sharpness`` on top: a head
        that finds nothing rests there. Where several match they share.
        """
        W, n, m = self.weights, len(query), len(read)
        W["W_Q"][layer, head, :, :n] = query.T * self.sharpness * 8  # 8 is the root of d_head
        W["W_K"][layer, head, :, :n] = key.T
        W["b_Q"][layer, head, n] = self.sharpness * 4
        W["W_K"][layer, head, :, n] = self["token"][0]
        W["W_V"][layer, head, :, :m] = read.T
        W["W_O"][layer, head, :m] = write
        return Part(Site(layer, "z", head))

    def neuron(self, layer: int, neuron: int, read: Tensor, write: Float[Tensor, " d_model"], bias: int = 0) -> Part:
        """Write ``relu(read · x + bias)`` along ``write``."""
        self.weights["W_in"][layer, :, neuron] = read
        self.weights["b_in"][layer, neuron] = bias
        self.weights["W_out"][layer, neuron] = write
        return Part(Site(layer, "mlp_out"), neuron)

    def answer(self, words: Sequence[str], read: Directions) -> Part:
        """Take the logits of ``words`` from what is along ``read``."""
        self.weights["W_U"][:, [self.words.index(word) for word in words]] = read.T
        return Part(Site(len(self.weights["W_Q"]) - 1))

    def model(self) -> TransformerBridge:
        """Return the model."""
        return from_weights(self.weights, self.words)


def _hadamard(size: int) -> Tensor:
    rows = torch.ones(1, 1)
    while len(rows) < size:
        rows = torch.cat([torch.cat([rows, rows], 1), torch.cat([rows, -rows], 1)])
    return rows / size**0.5
