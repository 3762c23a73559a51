"""Assert what a ``Known`` claims of its circuit, knowing nothing of how the weights were wired.

Components are patched in a second forward, written out over the weights: each reads the sum of what those before it
wrote, and can be made to read any one of them as it is on other prompts (path patching, Wang et al. 2022, arXiv
2211.00593; Goldowsky-Dill et al. 2023, arXiv 2304.05969). Unpatched, it must agree with the model itself.
"""

from collections.abc import Mapping
from functools import cache, partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.circuits.known.known import Known, Part, parts_of
from workbench.models import TransformerBridge

Path = tuple[Part, Part, str]
"""Who writes, who reads, and by which channel."""


def check(known: Known) -> dict[str, float]:
    """Return every claim with the share of prompts that are answered right under it, or raise with those that fail.

    An answer is right if it leads all others by half of what it leads by where the model as it is does worst. The
    behaviour is kept if all answers are right, and broken if no more are than by always giving the commonest.

    1. All answers are right; on the counterfactuals none is.
    2. With any node at its mean over the counterfactuals the behaviour is broken.
    3. With all other nodes at their means it is kept; with the irrelevant parts so, no logit changes.
    4. With any edge patched from the counterfactuals it is broken; with any other connection so, and with all, kept.
    """
    model, prompts = known.model, known.prompts
    clean, counter = model(prompts)[:, -1], model(known.counterfactuals)[:, -1]
    # Half of the lead, since means leave leads of rounding errors; something above 0 even where the model is wrong.
    enough = max(float(_lead(clean, known.answers).min()), 1e-3) / 2
    chance = int(known.answers.bincount().max()) / len(prompts)
    found: dict[str, float] = {}
    failed: list[str] = []

    def claim(words: str, logits: Tensor, least: float = 0.0, most: float = 1.0, holds: bool = True) -> None:
        right = found[words] = int((_lead(logits, known.answers) >= enough).sum()) / len(prompts)
        if not (least <= right <= most and holds):
            failed.append(f"{words} ({right:.0%} right)")

    # 1
    claim("all answers are right", clean, least=1.0)
    claim("no counterfactual has the same answer", counter, most=0.0)
    others, logits = by_paths(model, known.counterfactuals)
    agree = _same(logits, counter) and _same(by_paths(model, prompts)[1], clean)
    claim("the second forward agrees with the model", clean, holds=agree)
    # 2, 3
    means = {part: written.mean(0, keepdim=True) for part, written in others.items()}
    paths = [
        (source, target, channel)
        for target in parts_of(model)
        for source in parts_of(model)
        if _stage(source) < _stage(target)
        for channel in (("in",) if target.site.head is None else ("query", "key", "value"))
    ]

    def without(away: Mapping[Part, Tensor]) -> Tensor:
        return by_paths(model, prompts, means, {path: away[path[0]] for path in paths if path[0] in away})[1]

    everywhere = torch.ones_like(prompts, dtype=torch.bool)[:, None]
    rest = {source: everywhere for source, _, _ in paths}
    for node in known.nodes[:-1]:
        here = _at(known, node.role)[:, None]
        rest[node.part] = rest[node.part] & ~here
        claim(f"without {node} the behaviour is broken", without({node.part: here}), most=chance)
    claim("without all other nodes the behaviour is kept", without(rest), least=1.0)
    logits = without(dict.fromkeys(known.irrelevant, everywhere))
    claim("without the irrelevant parts no logit changes", logits, holds=_same(logits, clean))
    # 4
    edges: dict[Path, Tensor] = {}
    for edge in known.edges:
        path = edge.source.part, edge.target.part, edge.channel
        here = _at(known, edge.target.role)[:, :, None] & _at(known, edge.source.role)[:, None]
        edges[path] = here | edges.get(path, torch.zeros_like(here))
        logits = by_paths(model, prompts, others, {path: here})[1]
        claim(f"without {edge} the behaviour is broken", logits, most=chance)
    cut = {path: ~edges[path] if path in edges else everywhere for path in paths}
    claim("without all other connections the behaviour is kept", by_paths(model, prompts, others, cut)[1], least=1.0)
    for path in paths:
        words = f"without {path[0]} → {path[2]} of {path[1]}" + (" elsewhere" if path in edges else "")
        logits = by_paths(model, prompts, others, {path: cut[path]})[1]
        claim(f"{words} the behaviour is kept", logits, least=1.0)
    if failed:
        raise AssertionError(f"{known.name}: {len(failed)} of {len(found)} claims fail: {'; '.join(failed)}.")
    return found


def by_paths(
    model: TransformerBridge,
    tokens: Int[Tensor, "prompt pos"],
    others: Mapping[Part, Float[Tensor, "#prompt pos d_model"]] | None = None,
    cut: Mapping[Path, Bool[Tensor, "#prompt #pos pos"]] | None = None,
) -> tuple[dict[Part, Float[Tensor, "prompt pos d_model"]], Float[Tensor, "prompt d_vocab"]]:
    """Return what every part of a model without norms writes, and its logits at the last position.

    Args:
        model: The model.
        tokens: The prompts.
        others: What the parts write otherwise.
        cut: Paths along which ``others`` is read instead, and where: for which position, at which position.
    """
    W = cache(partial(getattr, model))  # the bridge stacks its layers anew each time
    written: dict[Part, Tensor] = {}
    logits = torch.empty(0)
    for part in parts_of(model):
        layer, head, neuron = part.site.layer, part.site.head, part.neuron
        read = partial(_read, part, written, others or {}, cut or {})
        if part.site.stream == "resid_pre":
            written[part] = W("W_E")[tokens] + W("W_pos")[: tokens.shape[1]]
        elif head is not None:
            q = read("query")[:, 0] @ W("W_Q")[layer, head] + W("b_Q")[layer, head]
            k = read("key") @ W("W_K")[layer, head] + W("b_K")[layer, head]
            v = read("value") @ W("W_V")[layer, head] + W("b_V")[layer, head]
            scores = (k @ q[..., None])[..., 0] / model.cfg.d_head**0.5
            pattern = scores.masked_fill(torch.ones_like(scores).triu(1) > 0, -torch.inf).softmax(-1)
            written[part] = (pattern[..., None, :] @ v)[..., 0, :] @ W("W_O")[layer, head]
        elif neuron is not None:
            before = read("in")[:, 0] @ W("W_in")[layer, :, neuron] + W("b_in")[layer, neuron]
            written[part] = before.relu()[..., None] * W("W_out")[layer, neuron]
        else:
            logits = read("in")[:, 0, -1] @ W("W_U")
    return written, logits


def _read(
    part: Part, written: Mapping[Part, Tensor], others: Mapping[Part, Tensor], cut: Mapping[Path, Tensor], channel: str
) -> Tensor:
    """Return what a part reads by a channel: [prompt, query, pos, d_model], with one query where all read the same."""
    sources = [source for source in written if _stage(source) < _stage(part)]
    stream = torch.stack([written[source] for source in sources]).sum(0)[:, None]
    for source in sources:
        if (where := cut.get((source, part, channel))) is not None:
            stream = stream + where[..., None] * (others[source] - written[source])[:, None]
    if channel in ("key", "value") or stream.shape[1] == 1:
        return stream
    return stream.diagonal(dim1=1, dim2=2).transpose(1, 2)[:, None]  # every position for itself


def _stage(part: Part) -> tuple[int, int]:
    """Return a number that is larger the later a part computes, and equal for parts side by side."""
    return part.site.layer, ("resid_pre", "z", "mlp_out", "resid_post").index(part.site.stream)


def _lead(logits: Tensor, answers: Tensor) -> Tensor:
    """Return by how much each answer leads the best other word."""
    return logits.gather(1, answers[:, None])[:, 0] - logits.scatter(1, answers[:, None], -torch.inf).amax(1)


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=0, atol=1e-4)


def _at(known: Known, role: str) -> Bool[Tensor, "prompt pos"]:
    return torch.arange(known.prompts.shape[1]) == known.roles[role][:, None]
