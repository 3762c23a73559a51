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
    """Build the family; the split holds out state × signals where there is more than one signal."""
    table = transitions(seed)
    held = {
        (state, n): Grid(f"{seed}|{n} signals when {state}", *[SIGNALS] * n)
        for state in STATES_OF_MACHINE
        for n in range(2, LONGEST + 1)
    }

    def begin(t: Tracer):
        for word in ("The", "machine", "is"):
            t.say(word)
        state = t.choose("state", STATES_OF_MACHINE)
        t.say(state, category="adjective", state=state)
        t.say(".")
        return report, (state, 0)

    def report(t: Tracer, state, told):
        for word in ("It", "hears"):
            t.say(word, state=state)
        count = t.choose("signals", tuple(range(1, LONGEST + 1)))
        grid = held.get((state, count))
        signals = [t.choose("signal", SIGNALS, held=grid) for _ in range(count)]
        for i, signal in enumerate(signals):
            if i:
                t.say(",", state=state)
            t.say("a", state=state)
            state = table[signal][state]
            t.say(signal, category="noun", state=state)
        for word in ("and", "is"):
            t.say(word, state=state)
        t.say(state, category="adjective", state=state, slot="state")
        t.say(".")
        if told + 1 < FEWEST or (told + 1 < MOST and t.choose("more", (True, False))):
            return report, (state, told + 1)

    return Family("machine", begin, {"machine": TaskSpec("state", "signal")}, weight=2.0)
