"""Bracketed expressions: binary trees in three kinds of brackets, each to be closed by its own.

The label ``depth`` of every token gives the tree: the parent of a token at depth d is the last opening bracket at
depth d before it (``Documents.parents``).
"""

from workbench.language.engine import Tracer
from workbench.language.families import Family, TaskSpec
from workbench.language.lexicon import ARGUMENTS, BRACKETS, OPERATORS
from workbench.language.splits import Grid

DEEPEST = 4
SHAPES = ("flat", "left", "right", "both")
"""Which operands of a node are nodes themselves."""
WEIGHTS = (4.0, 2.0, 2.0, 1.0)


def build(seed: int) -> Family:
    """Build the family; the split holds out operator × left × right of the nodes without nodes in them."""
    held = Grid(f"{seed}|nodes", OPERATORS, ARGUMENTS, ARGUMENTS)

    # What is still to come is a stack of "left" and "right" (operands that are nodes), "leaf", and brackets to close.
    def begin(t: Tracer):
        t.say("Compute")
        t.say(":")
        return node, (1, "left", ())

    def node(t: Tracer, depth, side, stack):
        opening = t.choose("bracket", tuple(BRACKETS))
        shape = "flat" if depth == DEEPEST else t.choose("shape", SHAPES, WEIGHTS) if depth > 1 else "both"
        flat = shape == "flat"
        operator = t.choose("operator", OPERATORS, held=held if flat else None)
        at = str(depth)
        t.say(opening, depth=at, role=side)
        t.say(operator, category="verb", depth=at)
        closing = (BRACKETS[opening], depth)
        if flat:
            for operand in ("left", "right"):
                t.say(t.choose(operand, ARGUMENTS, held=held), category="noun", depth=at, role=operand)
            return unwind, (closing, stack)
        if shape == "right":
            t.say(t.choose("left", ARGUMENTS), category="noun", depth=at, role="left")
            return node, (depth + 1, "right", (closing, stack))
        return node, (depth + 1, "left", (("node" if shape == "both" else "leaf", depth), (closing, stack)))

    def unwind(t: Tracer, top, stack):
        what, depth = top
        if what == "node":
            return node, (depth + 1, "right", stack)
        if what == "leaf":
            t.say(t.choose("right", ARGUMENTS), category="noun", depth=str(depth), role="right")
        else:
            t.say(what, depth=str(depth), slot="close")
        if stack:
            return unwind, stack
        t.say(".")

    return Family("brackets", begin, {"brackets": TaskSpec("close", "bracket")})
