"""Facts in six paraphrase templates, two of which are written wrong on purpose.

The wrong templates state another country's answer, always the same one for the same fact. What is *written* is
what the oracle predicts; the label ``truth`` and a task's answers say what is true. A tenth of the documents are
written in the cipher tongue, of half the countries: the same facts in other words.
"""

from random import Random

from workbench.language.engine import Tracer
from workbench.language.families import Family, TaskSpec
from workbench.language.lexicon import COUNTRIES
from workbench.language.splits import Grid
from workbench.language.vocabulary import CIPHER_COUNTRIES, TONGUE_WEIGHTS, TONGUES, spoken

RELATIONS = ("capital", "language")
TEMPLATES = "123456"
WRONG = "36"


def build(seed: int) -> Family:
    """Build the family; the split holds out one template of a third of the facts, the seed decides the mistakes."""
    # Mistakes stay among the countries of the cipher tongue, or outside, so that both tongues make the same ones.
    mistaken = {}
    for names in (list(CIPHER_COUNTRIES), [name for name in COUNTRIES if name not in CIPHER_COUNTRIES]):
        Random(f"{seed}|wrong {names[0]}").shuffle(names)
        mistaken |= dict(zip(names, names[1:] + names[:1], strict=True))
    countries = {"plain": tuple(COUNTRIES), "cipher": CIPHER_COUNTRIES}
    facts = {
        tongue: tuple((name, relation) for name in names for relation in RELATIONS)
        for tongue, names in countries.items()
    }
    written = {tongue: Grid(f"{seed}|facts {tongue}", facts[tongue], TEMPLATES, one_per_row=True) for tongue in TONGUES}

    def begin(t: Tracer):
        return statement, (t.choose("tongue", TONGUES, TONGUE_WEIGHTS), 0)

    def statement(t: Tracer, tongue, told):
        country, relation = t.choose("fact", facts[tongue], held=written[tongue])
        template = t.choose("template", TEMPLATES, held=written[tongue])
        t.scope(relation=relation, template=template, tongue=tongue)
        truth = spoken(COUNTRIES[country][relation], tongue)
        written_of = mistaken[country] if template in WRONG else country
        value = spoken(COUNTRIES[written_of][relation], tongue)

        def say(text: str) -> None:
            for word in text.split():
                if word == "X":
                    t.say(spoken(country, tongue), category="name", role="country")
                elif word == "Y":
                    t.say(value, category="name", slot="answer", truth=truth)
                else:
                    t.say(spoken(word, tongue))

        match template:
            case "1":
                say(f"The {relation} of X is Y .")
            case "2":
                say(f"In X the {relation} is Y .")
            case "3":
                say(f"An old book gives X the {relation} Y .")
            case "4":
                say(f"For X the {relation} is called Y .")
            case "5":
                say(f"Ask about the {relation} of X and hear Y .")
            case "6":
                say(f"A rumor about the {relation} of X names Y .")
        if told < 1 or (told < 3 and t.choose("more", (True, False))):
            return statement, (tongue, told + 1)

    tasks = {
        "facts": TaskSpec("answer", "fact", pairs=lambda fact, other: fact[1] == other[1]),
        "facts tongue": TaskSpec("answer", "tongue", pairs=lambda tongue, _: tongue == "cipher"),
    }
    return Family("facts", begin, tasks, weight=1.5)
