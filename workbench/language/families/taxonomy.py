"""Taxonomy: each thing is of one kind, each kind of one larger kind, said in six templates.

A tenth of the documents are written in the cipher tongue, of two kinds of animal.
"""

from workbench.language.engine import Tracer
from workbench.language.families import Family, TaskSpec
from workbench.language.lexicon import TAXONOMY, article, capital
from workbench.language.splits import Grid
from workbench.language.vocabulary import CIPHER_KINDS, TONGUE_WEIGHTS, TONGUES, spoken

TEMPLATES = "123456"
KIND_OF = {member: kind for kinds in TAXONOMY.values() for kind, members in kinds.items() for member in members}
LARGER = {kind: larger for larger, kinds in TAXONOMY.items() for kind in kinds}
KINDS = {"plain": tuple(LARGER), "cipher": CIPHER_KINDS}


def build(seed: int) -> Family:
    """Build the family; the split holds out one template of a third of the members."""
    members = {tongue: tuple(m for m, kind in KIND_OF.items() if kind in KINDS[tongue]) for tongue in TONGUES}
    written = {
        tongue: Grid(f"{seed}|taxonomy {tongue}", members[tongue], TEMPLATES, one_per_row=True) for tongue in TONGUES
    }

    def begin(t: Tracer):
        return statement, (t.choose("tongue", TONGUES, TONGUE_WEIGHTS), 0)

    def statement(t: Tracer, tongue, told):
        member = t.choose("member", members[tongue], held=written[tongue])
        template = t.choose("template", TEMPLATES, held=written[tongue])
        kind = KIND_OF[member]
        t.scope(kind=kind, larger=LARGER[kind], template=template, tongue=tongue)

        def say(text: str) -> None:
            for word in text.split():
                match word:
                    case "M":
                        t.say(spoken(member, tongue), category="noun", role="member")
                    case "K":
                        t.say(spoken(kind, tongue), category="noun", slot="kind")
                    case "L":
                        t.say(spoken(LARGER[kind], tongue), category="noun", slot="kind")
                    case _:
                        t.say(spoken(word, tongue))

        a_member, a_kind, a_larger = article(member), article(kind), article(LARGER[kind])
        match template:
            case "1":
                say(f"{capital(a_member)} M is {a_kind} K .")
            case "2":
                say(f"Every M is {a_kind} K .")
            case "3":
                say(f"{capital(a_member)} M is {a_kind} K and so it is {a_larger} L .")
            case "4":
                say("Because every")
                t.say(spoken(kind, tongue), category="noun")
                say(f"is {a_larger} L , {a_member} M is {a_larger} L .")
            case "5":
                right = t.choose("right", (True, False))
                asked = kind if right else t.choose("asked", tuple(k for k in KINDS[tongue] if k != kind))
                say(f"Is {a_member} M {article(asked)}")
                t.say(spoken(asked, tongue), category="noun")
                t.say("?")
                t.say(spoken("Yes" if right else "No", tongue), slot="verdict")
                t.say(".")
            case "6":
                say(f"We call {a_member} M {a_kind} K .")
        if told < 1 or (told < 3 and t.choose("more", (True, False))):
            return statement, (tongue, told + 1)

    tasks = {
        "taxonomy": TaskSpec("kind", "member"),
        "taxonomy tongue": TaskSpec("kind", "tongue", pairs=lambda tongue, _: tongue == "cipher"),
    }
    return Family("taxonomy", begin, tasks, weight=1.5)
