"""Taxonomy: each thing is of one kind, each kind of one larger kind, said in six templates."""

from workbench.language.engine import Tracer
from workbench.language.families import Family, TaskSpec
from workbench.language.lexicon import TAXONOMY, article, capital
from workbench.language.splits import Grid

TEMPLATES = "123456"
KINDS = tuple(kind for kinds in TAXONOMY.values() for kind in kinds)
KIND_OF = {member: kind for kinds in TAXONOMY.values() for kind, members in kinds.items() for member in members}
LARGER = {kind: larger for larger, kinds in TAXONOMY.items() for kind in kinds}


def build(seed: int) -> Family:
    """Build the family; the split holds out one template of each member."""
    written = Grid(f"{seed}|taxonomy", tuple(KIND_OF), TEMPLATES, one_per_row=True)

    def statement(t: Tracer, told=0):
        member = t.choose("member", tuple(KIND_OF), held=written)
        template = t.choose("template", TEMPLATES, held=written)
        kind = KIND_OF[member]
        t.scope(kind=kind, template=template)

        def say(text: str) -> None:
            for word in text.split():
                match word:
                    case "M":
                        t.say(member, category="noun", role="member")
                    case "K":
                        t.say(kind, category="noun", slot="kind")
                    case "L":
                        t.say(LARGER[kind], category="noun", slot="kind")
                    case _:
                        t.say(word)

        a_member, a_kind, a_larger = article(member), article(kind), article(LARGER[kind])
        match template:
            case "1":
                say(f"{capital(a_member)} M is {a_kind} K .")
            case "2":
                say(f"Every M is {a_kind} K .")
            case "3":
                say(f"{capital(a_member)} M is {a_kind} K and so it is {a_larger} L .")
            case "4":
                t.say("Because")
                t.say("every")
                t.say(kind, category="noun")
                say(f"is {a_larger} L , {a_member} M is {a_larger} L .")
            case "5":
                right = t.choose("right", (True, False))
                asked = kind if right else t.choose("asked", tuple(k for k in KINDS if k != kind))
                say(f"Is {a_member} M {article(asked)}")
                t.say(asked, category="noun")
                t.say("?")
                t.say("Yes" if right else "No", slot="verdict")
                t.say(".")
            case "6":
                say(f"We call {a_member} M {a_kind} K .")
        if told < 1 or (told < 3 and t.choose("more", (True, False))):
            return statement, (told + 1,)

    return Family("taxonomy", statement, {"taxonomy": TaskSpec("kind", "member")}, weight=1.5)
