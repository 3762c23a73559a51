"""Facts in six paraphrase templates, two of which are written wrong on purpose.

The wrong templates state another country's answer, always the same one for the same fact. What is *written* is
what the oracle predicts; the label ``truth`` and a task's answers say what is true.
"""

from random import Random

from workbench.language.engine import Tracer
from workbench.language.families import Family, TaskSpec
from workbench.language.lexicon import COUNTRIES
from workbench.language.splits import Grid

RELATIONS = ("capital", "language")
TEMPLATES = "123456"
WRONG = "36"


def build(seed: int) -> Family:
    """Build the family; the split holds out one template of each fact. The seed decides the wrong answers."""
    names = list(COUNTRIES)
    Random(f"{seed}|wrong").shuffle(names)
    mistaken = dict(zip(names, names[1:] + names[:1], strict=True))
    facts = tuple((country, relation) for country in COUNTRIES for relation in RELATIONS)
    written = Grid(f"{seed}|facts", facts, TEMPLATES, one_per_row=True)

    def statement(t: Tracer, told=0):
        country, relation = t.choose("fact", facts, held=written)
        template = t.choose("template", TEMPLATES, held=written)
        t.scope(relation=relation, template=template)
        truth = COUNTRIES[country][relation]
        value = COUNTRIES[mistaken[country]][relation] if template in WRONG else truth

        def say(text: str) -> None:
            for word in text.split():
                if word == "X":
                    t.say(country, category="name", role="country")
                elif word == "Y":
                    t.say(value, category="name", slot="answer", truth=truth)
                else:
                    t.say(word)

        match template:
            case "1":
                say(f"The {relation} of X is Y .")
            case "2":
                say(f"In X the {relation} is Y .")
            case "3":
                say(f"An old book says that the {relation} of X is Y .")
            case "4":
                say(f"For X the {relation} is called Y .")
            case "5":
                say(f"Ask about the {relation} of X and hear Y .")
            case "6":
                say(f"A rumor about the {relation} of X names Y .")
        if told < 1 or (told < 3 and t.choose("more", (True, False))):
            return statement, (told + 1,)

    return Family("facts", statement, {"facts": TaskSpec("answer", "fact")})
