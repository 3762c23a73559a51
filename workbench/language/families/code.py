"""Short lines of code: variables are given digits or copies of one another, and all are printed."""

from workbench.language.engine import Tracer
from workbench.language.families import Family, TaskSpec
from workbench.language.lexicon import DIGITS, VARIABLES
from workbench.language.splits import Grid

FEWEST, MOST = 3, 5  # assignments in a document


def build(seed: int) -> Family:
    """Build the family; the split holds out the first two variables and the first digit."""
    held = Grid(f"{seed}|code", VARIABLES, DIGITS, VARIABLES, allow=lambda a, _, b: a != b)

    def begin(t: Tracer):
        first = t.choose("variable", VARIABLES, held=held)
        digit = t.choose("digit", DIGITS, held=held)
        _assign(t, first, digit)
        second = t.choose("variable", VARIABLES, held=held)
        return assign, (second, ((first, digit),))

    def _assign(t: Tracer, variable: str, value: str) -> None:
        t.say("set")
        t.say(variable, category="noun", role="variable")
        t.say(value)
        t.say(";")

    def assign(t: Tracer, variable, known):
        values = dict(known)
        others = tuple(name for name in values if name != variable)
        if others and t.choose("copy", (True, False), (1.0, 2.0)):
            source = t.choose("source", others)
            _assign(t, variable, source)
            values[variable] = values[source]
        else:
            values[variable] = t.choose("digit", DIGITS)
            _assign(t, variable, values[variable])
        known = tuple(sorted(values.items()))
        if len(known) < FEWEST or (len(known) < MOST and t.choose("more", (True, False))):
            new = t.choose("variable", tuple(name for name in VARIABLES if name not in values))
            return assign, (new, known)
        return show, (known,)

    def show(t: Tracer, known):
        variable, value = t.choose("shown", known)
        t.say("print")
        t.say(variable)
        t.say(value, category="number", slot="value")
        left = tuple(pair for pair in known if pair[0] != variable)
        if left:
            t.say(";")
            return show, (left,)
        t.say(".")

    return Family("code", begin, {"code": TaskSpec("value", "digit")}, weight=2.0)
