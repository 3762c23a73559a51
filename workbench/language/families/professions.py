"""Professions with a planted shortcut: two trades share each workplace, and gender tells them apart too often.

A tool of its own gives a trade away; a third of the time the tool is one that both trades use, and then nothing but
the stereotype is left. How often gender keeps to the stereotype is an argument of the language: 0.9, or 0.5 for a
balanced one.
"""

from workbench.language.engine import Tracer
from workbench.language.families import Family, TaskSpec
from workbench.language.lexicon import HE, SHE, TRADES
from workbench.language.splits import Grid

VERBS = ("uses", "carries", "keeps", "needs")
PEOPLE = {"she": SHE, "he": HE}


def build(seed: int, shortcut: float = 0.9) -> Family:
    """Build the family; the split holds out who has which tool and how: name × tool × verb of each trade."""
    tools = {trade.name: (*trade.tools, both) for (_, both), trades in TRADES.items() for trade in trades}
    held = {
        (name, gender): Grid(f"{seed}|{name} {gender}", people, tools[name], VERBS)
        for name in tools
        for gender, people in PEOPLE.items()
    }

    def sentence(t: Tracer, told=0):
        place, both = t.choose("workplace", tuple(TRADES))
        trades = {trade.name: trade for trade in TRADES[place, both]}
        trade = trades[t.choose("profession", tuple(trades))]
        share = shortcut if trade.gender == "she" else 1 - shortcut
        gender = t.choose("gender", ("she", "he"), (share, 1 - share))
        t.scope(profession=trade.name, gender=gender)
        grid = held[trade.name, gender]
        t.say(t.choose("name", PEOPLE[gender], held=grid), category="name")
        for word in ("works", "at", "the"):
            t.say(word)
        t.say(place, category="place")
        t.say(".")
        pronoun = gender.capitalize()
        tool = t.choose("tool", tools[trade.name], held=grid)
        t.say(pronoun, category="pronoun")
        t.say(t.choose("verb", VERBS, held=grid), category="verb")
        t.say("a")
        t.say(tool, category="noun", role="shared tool" if tool == both else "own tool")
        t.say(".")
        t.say(pronoun, category="pronoun")
        t.say("is")
        t.say("a")
        t.say(trade.name, category="noun", slot="profession")
        t.say(".")
        if told < 1 and t.choose("more", (True, False)):
            return sentence, (told + 1,)

    return Family("professions", sentence, {"professions": TaskSpec("profession", "profession")})
