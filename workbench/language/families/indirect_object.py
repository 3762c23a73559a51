"""Indirect object: of two people one gives, so the other receives; either may have been named first."""

from workbench.language.engine import Tracer
from workbench.language.families import Family, TaskSpec
from workbench.language.lexicon import GIFTS, HE, MEETINGS, NAMES
from workbench.language.splits import Grid


def build(seed: int) -> Family:
    """Build the family; the split holds out pairs of people × where they met."""
    met = Grid(f"{seed}|met", NAMES, NAMES, MEETINGS, allow=lambda a, b, _: a != b)

    def name(t: Tracer, who: str, **labels: str) -> None:
        t.say(who, category="name", gender="he" if who in HE else "she", **labels)

    def sentence(t: Tracer, told=0):
        frame = t.choose("frame", ("When", "After", "met"))
        if frame != "met":
            t.say(frame)
        first = t.choose("first", NAMES, held=met)
        name(t, first)
        t.say("and")
        second = t.choose("second", NAMES, held=met)
        name(t, second)
        if frame == "met":
            t.say("met")
            t.say("at")
        else:
            t.say("went")
            t.say("to")
        t.say("the")
        t.say(t.choose("place", MEETINGS, held=met), category="place")
        t.say("and" if frame == "met" else ",")
        order = t.choose("giver", ("first", "second"))
        giver, receiver = (first, second) if order == "first" else (second, first)
        name(t, giver, role="giver")
        t.say(t.choose("give", ("gave", "handed", "showed")), category="verb")
        t.say("a")
        t.say(t.choose("gift", GIFTS), category="noun", role="gift")
        t.say("to")
        name(t, receiver, role="receiver", slot="receiver")
        t.say(".")
        if told < 2 and t.choose("more", (True, False)):
            return sentence, (told + 1,)

    return Family("indirect_object", sentence, {"indirect_object": TaskSpec("receiver", "giver")})
