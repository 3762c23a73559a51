"""Four tasks, and the models wired for them."""

from collections.abc import Sequence
from itertools import permutations, product

import torch

from workbench.circuits.known.known import Case, Edge, Known, Node
from workbench.circuits.known.wiring import EMBED, EXACT, Wiring

Pair = tuple[str, str]


def induction(*, sharpness: float | int = EXACT) -> Known:
    """Return A B … A → B in two layers of attention (Olsson et al. 2022, arXiv 2209.11895).

    Head 0.1 writes at each token which one came before it; head 1.2 looks for the place that the present token came
    before, and copies what stands there. The others copy the present token (0.0) and the one before the last (0.2),
    look for the present token itself (1.0), and do induction across a gap (1.1).
    """
    letters = "ABCDEF"
    w = Wiring(letters, 2, 3, dict.fromkeys(("before", "out", "here", "gap", "same", "skip"), 6), sharpness=sharpness)
    letter, place = w.of(letters), w["position"]
    w.head(0, 0, place, place, letter, w["here"])
    previous = Node(w.head(0, 1, place[1:], place[:-1], letter, w["before"]), "after")
    w.head(0, 2, place[2:], place[:-2], letter, w["gap"])
    w.head(1, 0, letter, w["here"], letter, w["same"])
    w.head(1, 1, letter, w["gap"], letter, w["skip"])
    inductor = Node(w.head(1, 2, letter, w["before"], letter, w["out"]), "last")
    edges = [
        Edge(Node(EMBED, "first"), previous, "value"),
        Edge(previous, inductor, "key"),
        Edge(Node(EMBED, "last"), inductor, "query"),
        Edge(Node(EMBED, "after"), inductor, "value"),
        Edge(inductor, Node(w.answer(letters, w["out"]), "last"), "in"),
    ]
    cases = []
    for text, first in product(permutations(letters, 3), (0, 1)):
        prompt, counterfactual = (" ".join([*words, words[first]]) for words in (text, _others(letters, text)))
        roles = {"first": first + 1, "after": first + 2, "last": 4}
        cases.append(Case(prompt, counterfactual, text[first + 1], text[2 - 2 * first], roles))
    return Known.of(w.model(), cases, edges, name="induction")


def copy(*, sharpness: float | int = EXACT) -> Known:
    """Return one head that copies the word of the colour that is asked for: red:sun blue:sea red? → sun.

    Head 0.1 looks for the colour and copies the word. Head 0.0 copies the word that comes first, and 0.2 the colour
    that is not asked for.
    """
    colours, words = ("red", "blue", "green", "gold"), ("sun", "sea", "oak", "owl")
    asks, coloured = [f"{colour}?" for colour in colours], [f"{c}:{word}" for c, word in product(colours, words)]
    w = Wiring([*coloured, *asks, *words], 1, 3, dict.fromkeys(("out", "first", "rest"), 4), sharpness=sharpness)
    table = w.of(coloured).unflatten(0, (4, 4))
    colour, word, ask, place = table.sum(1), table.sum(0), w.of(asks), w["position"]
    w.head(0, 0, place[2:].sum(0, keepdim=True), place[1:2], word, w["first"])
    copier = Node(w.head(0, 1, ask, colour, word, w["out"]), "ask")
    w.head(0, 2, ask, colour.sum(0) - colour, colour, w["rest"])
    edges = [
        Edge(Node(EMBED, "ask"), copier, "query"),
        Edge(Node(EMBED, "marked"), copier, "key"),
        Edge(Node(EMBED, "marked"), copier, "value"),
        Edge(copier, Node(w.answer(words, w["out"]), "ask"), "in"),
    ]

    def text(hues: Sequence[str], said: Sequence[str], turn: int) -> str:
        pair = [f"{hue}:{word}" for hue, word in zip(hues, said, strict=True)]
        return " ".join([*pair[::turn], f"{hues[0]}?"])

    cases = []
    for hues, said, turn in product(permutations(colours, 2), permutations(words, 2), (1, -1)):
        counterfactual = text(_others(colours, hues), _others(words, said), turn)
        marked, other = (1, 2)[::turn]
        roles = {"marked": marked, "other": other, "ask": 3}
        cases.append(Case(text(hues, said, turn), counterfactual, said[0], said[1], roles))
    return Known.of(w.model(), cases, edges, name="copy")


def gating(*, sharpness: float | int = EXACT) -> Known:
    """Return an AND of what attention and an earlier MLP found: key near door → opens, all else → stays.

    Head 0.1 tells the last position whether the first word opens things, neuron 0.1 whether the last word can be
    opened; neuron 1.2 fires on both together only. Neurons 1.0 (either) and 1.1 (the first without the second) read
    the same two, and nobody reads them.
    """
    items, goals, fillers = {"key": "stone", "card": "coin"}, {"door": "wall", "gate": "hill"}, ("near", "under")
    words = [*items, *items.values(), *fillers, *goals, *goals.values(), "opens", "stays"]
    spaces = {"opener": 1, "opened": 1, "both": 1, "middle": 2, "scrap": 3}
    w = Wiring(words, 2, 2, spaces, neurons=3, sharpness=sharpness)
    place, (opener,), (opened,), (both,), scrap = w["position"], w["opener"], w["opened"], w["both"], w["scrap"]
    w.head(0, 0, place[3:4], place[2:3], w.of(fillers), w["middle"])
    has = Node(w.head(0, 1, place[3:4], place[1:2], w.of([*items]).sum(0, keepdim=True), w["opener"]), "last")
    w.neuron(0, 0, w.of(fillers).sum(0), scrap[0])
    fits = Node(w.neuron(0, 1, w.of([*goals]).sum(0), opened), "last")
    w.neuron(0, 2, w.of([*items.values(), *goals.values()]).sum(0), scrap[1])
    w.head(1, 0, place[3:4], place[1:2], scrap[1:2], scrap[2:3])
    w.head(1, 1, place[3:4], place[3:4], w["middle"], scrap[:2])
    w.neuron(1, 0, opener + opened, scrap[0])
    w.neuron(1, 1, opener - opened, scrap[2])
    gate = Node(w.neuron(1, 2, 4 * (opener + opened), both, bias=-7), "last")
    w.answer(["stays"], place[3:4])
    edges = [
        Edge(Node(EMBED, "item"), has, "value"),
        Edge(Node(EMBED, "last"), fits, "in"),
        Edge(has, gate, "in"),
        Edge(fits, gate, "in"),
        Edge(gate, Node(w.answer(["opens"], 2 * w["both"]), "last"), "in"),
    ]
    cases = []
    for (near, under), item, goal in product(permutations(fillers), items.items(), goals.items()):
        texts = f"{{}} {near} {{}}", f"{{}} {under} {{}}"
        cases += and_cases(texts, item, goal, ("opens", "stays"), {"item": 1, "last": 3})
    return Known.of(w.model(), cases, edges, name="gating")


def indirect_object(*, sharpness: float | int = EXACT) -> Known:
    """Return who is not named twice: then Ann and Bob met at sea . Bob gave tea to → Ann, in either order.

    After what Wang et al. 2022 (arXiv 2211.00593) found in GPT-2 small, each step one head of its own layer: 0.1
    marks a name that came before (duplicate token), 1.0 brings the marked name to the end (S-inhibition), 2.1 copies
    a name other than this (name mover). What is inhibited is the name, wherever it stands, so that the name mover's
    keys matter at both places of the subject. There are no backup, negative or induction heads. Heads 0.0 and 1.1
    tell which name came before and two before; 2.0 copies the inhibited name to where nothing reads.
    """
    names, goals, gifts = ("Ann", "Bob", "Cat", "Dan", "Eve"), ("sea", "inn"), ("tea", "hat")
    words = [*"then and met at . gave to".split(), *names, *goals, *gifts]
    spaces = {"again": 1, **dict.fromkeys(("not", "out", "before", "gap", "shadow"), 5)}
    w = Wiring(words, 3, 2, spaces, positions=16, sharpness=sharpness)
    name, place, end = w.of(names), w["position"], w.of(["to"])
    some = name.sum(0, keepdim=True)
    w.head(0, 0, place[1:], place[:-1], name, w["before"])
    # The same name, but not in the same place.
    again = Node(w.head(0, 1, torch.cat([name, place]), torch.cat([name, -place]), some, w["again"]), "S2")
    inhibitor = Node(w.head(1, 0, end, w["again"], name, w["not"]), "end")
    w.head(1, 1, place[1:], place[:-1], w["before"], w["gap"])
    w.head(2, 0, w["not"], name, name, w["shadow"])
    # Any name, but not the inhibited one.
    mover = Node(w.head(2, 1, torch.cat([end, w["not"]]), torch.cat([some, -name]), name, w["out"]), "end")
    edges = [
        Edge(Node(EMBED, "S2"), again, "query"),
        Edge(Node(EMBED, "S1"), again, "key"),
        Edge(again, inhibitor, "key"),
        Edge(Node(EMBED, "S2"), inhibitor, "value"),
        Edge(inhibitor, mover, "query"),
        Edge(Node(EMBED, "S1"), mover, "key"),
        Edge(Node(EMBED, "S2"), mover, "key"),
        Edge(Node(EMBED, "IO"), mover, "value"),
        Edge(mover, Node(w.answer(names, w["out"]), "end"), "in"),
    ]

    def text(io: str, s1: str, s2: str, goal: str, gift: str, turn: int) -> str:
        first, second = (io, s1)[::turn]
        return f"then {first} and {second} met at {goal} . {s2} gave {gift} to"

    cases = []
    pairs = permutations(names, 2), permutations(goals), permutations(gifts)
    for (io, s), (goal, inn), (gift, hat), turn in product(*pairs, (1, -1)):
        one, two, three = _others(names, (io, s))
        at_io, at_s1 = (2, 4)[::turn]
        roles = {"IO": at_io, "S1": at_s1, "S2": 9, "end": 12}
        texts = text(io, s, s, goal, gift, turn), text(one, two, three, inn, hat, turn)
        cases.append(Case(*texts, io, s, roles))
    return Known.of(w.model(), cases, edges, name="indirect_object")


def and_cases(texts: Pair, first: Pair, last: Pair, answers: Pair, roles: dict[str, int]) -> list[Case]:
    """Return the prompts of an AND and all counterfactuals with the other answer; of each pair the first means yes."""
    pairs = list(product(first, last))
    answer = {pair: answers[pair != pairs[0]] for pair in pairs}
    return [
        Case(texts[0].format(*one), texts[1].format(*two), answer[one], answer[two], roles)
        for one, two in permutations(pairs, 2)
        if answer[one] != answer[two]
    ]


def _others(words: Sequence[str], used: Sequence[str]) -> list[str]:
    """Return the words that are not used, from the last used one on, so that all prompts together favour none."""
    start = words.index(used[-1])
    return [word for word in [*words[start:], *words[:start]] if word not in used]
