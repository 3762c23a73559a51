"""In-context functions: which of seven functions maps each input to its output shows only in the examples."""

from workbench.language.engine import Tracer
from workbench.language.families import Family, TaskSpec
from workbench.language.lexicon import FUNCTIONS
from workbench.language.splits import Grid

FEWEST, MOST = 4, 7  # examples in a document


def build(seed: int) -> Family:
    """Build the family; the split holds out the first three inputs of each function."""
    inputs = {name: tuple(table) for name, table in FUNCTIONS.items()}
    held = {
        name: Grid(f"{seed}|{name}", words, words, words, allow=lambda a, b, c: len({a, b, c}) == 3)
        for name, words in inputs.items()
    }

    def example(t: Tracer, function: str, word: str, **asked: str) -> None:
        t.say(word, role="input")
        t.say("becomes")
        t.say(FUNCTIONS[function][word], role="output", **asked)

    def first(t: Tracer):
        function = t.choose("function", tuple(FUNCTIONS))
        t.scope(function=function)
        used = ()
        for i in range(3):
            word = t.choose("input", inputs[function], held=held[function])
            # The first example is what tells the functions apart, so its output is not yet asked for.
            example(t, function, word, **({"slot": "output"} if i else {}))
            t.say(",")
            used = (*used, word)
        return later, (function, used)

    def later(t: Tracer, function, used):
        t.scope(function=function)
        word = t.choose("input", tuple(word for word in inputs[function] if word not in used))
        example(t, function, word, slot="output")
        used = tuple(sorted((*used, word)))  # their order no longer matters: equal futures are one state
        if len(used) < FEWEST or (len(used) < MOST and t.choose("more", (True, False), (2.0, 1.0))):
            t.say(",")
            return later, (function, used)
        t.say(".")

    return Family("functions", first, {"functions": TaskSpec("output", "function")})
