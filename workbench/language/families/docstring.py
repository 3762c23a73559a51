"""Docstrings: the arguments of a routine are described in the order in which they were declared."""

from workbench.language.engine import Tracer
from workbench.language.families import Family, TaskSpec
from workbench.language.lexicon import ARGUMENT_KINDS, ARGUMENT_SIZES, ARGUMENTS, ROUTINES
from workbench.language.splits import Grid

MOST = 4  # arguments of a routine; the fewest are three


def build(seed: int) -> Family:
    """Build the family; the split holds out the first three arguments."""
    held = Grid(f"{seed}|arguments", ARGUMENTS, ARGUMENTS, ARGUMENTS, allow=lambda a, b, c: len({a, b, c}) == 3)

    def declare(t: Tracer):
        t.say("def")
        t.say(t.choose("routine", ROUTINES), category="verb", role="routine")
        t.say("(")
        names = ()
        for i in range(3):
            if i:
                t.say(",")
            names = (*names, t.choose("argument", ARGUMENTS, held=held))
            t.say(names[-1], category="noun", role="argument")
        if len(names) < MOST and t.choose("fourth", (True, False)):
            names = (*names, t.choose("argument", tuple(name for name in ARGUMENTS if name not in names)))
            t.say(",")
            t.say(names[-1], category="noun", role="argument")
        t.say(")")
        t.say(":")
        return describe, names

    def describe(t: Tracer, name, *rest):
        t.say("param")
        t.say(name, category="noun", slot="argument")
        t.say(":")
        t.say("the")
        t.say(t.choose("size", ARGUMENT_SIZES), category="adjective")
        t.say(t.choose("kind", ARGUMENT_KINDS), category="noun")
        t.say(".")
        if rest:
            return describe, rest

    return Family("docstring", declare, {"docstring": TaskSpec("argument", "argument")})
