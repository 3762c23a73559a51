"""Calendar arithmetic: weekdays count modulo seven, months modulo twelve. Nothing is held out."""

from workbench.language.engine import Tracer
from workbench.language.families import Family, TaskSpec
from workbench.language.lexicon import COUNTS, MONTHS, WEEKDAYS


def build(seed: int) -> Family:
    """Build the family."""

    def sentence(t: Tracer, told=0):
        t.say("From")
        unit = t.choose("unit", ("days", "months"))
        names, slot = (WEEKDAYS, "day") if unit == "days" else (MONTHS, "month")
        start = t.choose(slot, names)
        t.say(start, category="name", role="start")
        count = t.choose("count", COUNTS)
        t.say(count, category="number")
        t.say(unit)
        direction = t.choose("direction", ("later", "earlier"))
        t.say(direction)
        steps = COUNTS.index(count) + 2
        end = (names.index(start) + (steps if direction == "later" else -steps)) % len(names)
        t.say("it")
        t.say("is")
        t.say(names[end], category="name", slot=slot)
        t.say(".")
        if told < 1 or (told < 3 and t.choose("more", (True, False))):
            return sentence, (told + 1,)

    return Family(
        "calendar", sentence, {"weekdays": TaskSpec("day", "day"), "months": TaskSpec("month", "month")}, weight=1.5
    )
