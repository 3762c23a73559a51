"""Automaton traces: a machine whose state follows from its last state and the signals it hears.

Between two reports of its state it hears one or two signals, so the state has to be tracked unsaid; the label
``state`` of every signal is the state after it.
"""

from random import Random

from workbench.language.engine import Tracer
from workbench.language.families import Family, TaskSpec
from workbench.language.lexicon import SIGNALS, STATES_OF_MACHINE
from workbench.language.splits import Grid

FEWEST, MOST = 3, 6  # reports in a document
LONGEST = 2  # signals between two reports


def transitions(seed: int) -> dict[str, dict[str, str]]:
    """Return signal → state → next state: every signal permutes the states and leaves none where it was."""
    rng = Random(f"{seed}|machine")
    table = {}
    for signal in SIGNALS:
        after = list(STATES_OF_MACHINE)
        while any(a == b for a, b in zip(STATES_OF_MACHINE, after, strict=True)) or after in table.values():
            rng.shuffle(after)
        table[signal] = after
    return {signal: dict(zip(STATES_OF_MACHINE, after, strict=True)) for signal, after in table.items()}


def build(seed: int) -> Family:
    """Build the family; the split holds out how a trace begins: state × signals of the first two reports.

    What a state and the signals to the next report lead to is always seen, in other traces.
    """
    table = transitions(seed)
    held = {n: Grid(f"{seed}|{n} signals", STATES_OF_MACHINE, *[SIGNALS] * n) for n in range(2, 2 * LONGEST + 1)}

    def begin(t: Tracer):
        counts = [_count(t), _count(t)]
        grid = held[sum(counts)]
        for word in ("The", "machine", "is"):
            t.say(word)
        state = t.choose("state", STATES_OF_MACHINE, held=grid)
        t.say(state, category="adjective", state=state)
        t.say(".")
        for count in counts:
            state = _report(t, state, count, grid)
        return report, (state, 2)

    def report(t: Tracer, state, told):
        state = _report(t, state, _count(t), None)
        if told + 1 < FEWEST or (told + 1 < MOST and t.choose("more", (True, False))):
            return report, (state, told + 1)

    def _count(t: Tracer) -> int:
        return t.choose("signals", tuple(range(1, LONGEST + 1)))

    def _report(t: Tracer, state: str, count: int, grid: Grid | None) -> str:
        for word in ("It", "hears"):
            t.say(word, state=state)
        for i in range(count):
            if i:
                t.say(",", state=state)
            t.say("a", state=state)
            signal = t.choose("signal", SIGNALS, held=grid)
            state = table[signal][state]
            t.say(signal, category="noun", state=state)
        for word in ("and", "is"):
            t.say(word, state=state)
        t.say(state, category="adjective", state=state, slot="state")
        t.say(".")
        return state

    return Family("machine", begin, {"machine": TaskSpec("state", "signal")}, weight=1.5)
