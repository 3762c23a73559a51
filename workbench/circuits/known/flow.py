"""A model with a dictionary at every site, in which it is known what happens to each feature."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.circuits.known.known import Edge, Event, Feature, Known, Node
from workbench.circuits.known.tasks import and_cases
from workbench.circuits.known.wiring import EMBED, EXACT, Wiring
from workbench.dictionaries import Dictionary, TopK
from workbench.models import Site

Named = dict[str, Float[Tensor, " d_model"]]


def flow(*, sharpness: float | int = EXACT, seed: int = 0) -> Known:
    """Return three blocks that answer yes after "a b", with a dictionary at every site (Laptev et al. 2025).

    Words and positions are carried from the embedding to the end. Head 0.0 writes which letter came before, head 1.0
    which came two before, head 2.0 whether there was a d; neuron 0.0 says "a or c", neurons 1.0 and 1.1 "a b" and
    "c d". In block 2 neuron 2.0 turns "a b" to a direction with cosine 1/2 to the old one, and 2.1 to 2.4 erase which
    letter came before; the other neurons are idle. No direction lies along an axis, every dictionary has its own
    order, and two features of each are never active. ``dictionaries[site].provenance["features"]`` names them.

    Args:
        sharpness: As for the others; with less than 256 the codes are no whole numbers, and still exact.
        seed: Of the order of the features.
    """
    letters = "abcd"
    spaces = {"before": 4, "two before": 4, "d": 1, "a or c": 1, "pairs": 2, "turn": 3}
    w = Wiring([*letters, "yes", "no"], 3, 1, spaces, positions=5, neurons=5, sharpness=sharpness, turned=True)
    letter, place, before, two_before = w.of(letters), w["position"], w["before"], w["two before"]
    (a_b, c_d), turn = w["pairs"], w["turn"].sum(0)
    previous = Node(w.head(0, 0, place[1:], place[:-1], letter, before), "last")
    w.head(1, 0, place[1:], place[:-1], before, two_before)
    w.head(2, 0, place.sum(0, keepdim=True), w.of("d"), w.of("d"), w["d"])
    w.neuron(0, 0, letter[0] + letter[2], w["a or c"][0])
    pair = Node(w.neuron(1, 0, 4 * (before[0] + letter[1]), a_b, bias=-7), "last")
    w.neuron(1, 1, 4 * (before[2] + letter[3]), c_d, bias=-7)
    turner = Node(w.neuron(2, 0, a_b, (turn - a_b) / 2), "last")
    for i, direction in enumerate(before, start=1):
        w.neuron(2, i, direction, -direction)
    w.answer(["no"], 3 * place[3:4])
    out = Node(w.answer(["yes"], 2 * (turn + a_b)[None]), "last")
    edges = [
        Edge(Node(EMBED, "first"), previous, "value"),
        Edge(previous, pair, "in"),
        Edge(Node(EMBED, "last"), pair, "in"),
        Edge(pair, turner, "in"),
        Edge(pair, out, "in"),
        Edge(turner, out, "in"),
    ]
    cases = []
    for x, other in zip("abcd", "cdab", strict=True):
        texts = f"{x} {{}} {{}}", f"{other} {{}} {{}}"
        cases += and_cases(texts, ("a", "c"), ("b", "d"), ("yes", "no"), {"first": 2, "last": 3})

    embedded = dict(zip(w.words, w["token"], strict=True))
    embedded |= {f"position {i}": direction for i, direction in enumerate(place)}
    erase = {f"erase {x} before": -direction for x, direction in zip(letters, before, strict=True)}
    blocks = [
        ({f"{x} before": d for x, d in zip(letters, before, strict=True)}, {"a or c": w["a or c"][0]}),
        ({f"{x} two before": d for x, d in zip(letters, two_before, strict=True)}, {"a b": a_b, "c d": c_d}),
        ({"d seen": w["d"][0]}, {"turn a b": (turn - a_b) / 2, **erase}),
    ]
    dictionaries, events = _follow(embedded, blocks, w.unused, torch.Generator().manual_seed(seed))
    return Known.of(w.model(), cases, edges, name="flow", dictionaries=dictionaries, events=events)


def _follow(
    embedded: Named, blocks: Sequence[tuple[Named, Named]], unused: Tensor, random: torch.Generator
) -> tuple[dict[Site, Dictionary], tuple[Event, ...]]:
    """Return a dictionary for every site and what happens to each feature, given what each block adds."""
    dictionaries: dict[Site, Dictionary] = {}
    events: list[Event] = []
    spare = iter(unused.split(2))

    def put(site: Site, directions: Named) -> dict[str, Feature]:
        known = {**directions, **{f"never {i}": direction for i, direction in enumerate(next(spare))}}
        names = [list(known)[i] for i in torch.randperm(len(known), generator=random)]
        dictionaries[site] = _dictionary(site, torch.stack([known[name] for name in names]), names)
        return {name: Feature(site, i) for i, name in enumerate(names)}

    stream, here = embedded, put(Site(0, "resid_pre"), embedded)
    for layer, (attn, mlp) in enumerate(blocks):
        by_attn, by_mlp = put(Site(layer, "attn_out"), attn), put(Site(layer, "mlp_out"), mlp)
        now = {**stream, **attn}
        story: dict[str, tuple[str, tuple[Feature, ...]]] = {name: ("carried", (here[name],)) for name in stream}
        story |= {name: ("attn", (by_attn[name],)) for name in attn}
        for what, direction in mlp.items():
            name = what.removeprefix("turn ").removeprefix("erase ")
            if name not in now:
                now[name], story[name] = direction, ("mlp", (by_mlp[what],))
            elif what.startswith("turn"):
                now[name], story[name] = now[name] + direction, ("processed", (here[name], by_mlp[what]))
            else:
                del now[name], story[name]
                events.append(Event(here[name], name, "died", (by_mlp[what],)))
        stream, here = now, put(Site(layer), now)
        for name, feature in here.items():
            kind, sources = story.get(name, ("unexplained", ()))
            events.append(Event(feature, name, kind, sources))  # pyright: ignore[reportArgumentType]
    return dictionaries, tuple(events)


def _dictionary(site: Site, directions: Float[Tensor, "n d_model"], names: Sequence[str]) -> Dictionary:
    """Return the dictionary with one feature along each of some orthogonal directions."""
    n, d_model = directions.shape
    dictionary = TopK(d_model, n, k=n, sites_in=site).requires_grad_(False)
    dictionary.W_enc.copy_(directions)
    dictionary.W_dec.copy_(directions)
    dictionary.initialised.fill_(True)
    dictionary.provenance = {"features": list(names)}
    return dictionary
