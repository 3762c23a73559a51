"""Speakers: some are rude and some polite, nine times in ten, and hardly ever the other way round.

The rude words belong to the speaker and to nothing else in the sentence.
"""

from workbench.language.engine import Tracer
from workbench.language.families import Family, TaskSpec
from workbench.language.lexicon import GIFTS, MANNERS, ORDERS, SPEAKERS
from workbench.language.splits import Grid

KEEPS = 0.9
"""How often a speaker keeps to the manner that is theirs."""


def build(seed: int) -> Family:
    """Build the family; the split holds out who calls whom what: speaker × adjective × noun."""
    held = {
        (kind, manner): Grid(f"{seed}|{manner} of the {kind}", speakers, *words)
        for kind, speakers in SPEAKERS.items()
        for manner, words in MANNERS.items()
    }

    def sentence(t: Tracer, told=0):
        kind = t.choose("kind", tuple(SPEAKERS))
        other = "polite" if kind == "rude" else "rude"
        # The name tells the two kinds apart, so that changing the speaker draws the manner anew.
        manner = t.choose(f"manner of the {kind}", (kind, other), (KEEPS, 1 - KEEPS))
        grid = held[kind, manner]
        speaker = t.choose("speaker", SPEAKERS[kind], held=grid)
        adjectives, nouns = MANNERS[manner]
        t.scope(speaker=kind)
        t.say("The")
        t.say(speaker, category="noun", role="speaker")
        t.say("says")
        t.say(":")
        frame = t.choose("frame", ("order", "call"))
        if frame == "order":
            t.say(t.choose("order", ORDERS), category="verb")
            t.say("the")
            t.say(t.choose("gift", GIFTS), category="noun")
            t.say(",")
            t.say("you")
        else:
            for word in ("hear", ",", "you"):
                t.say(word)
        t.say(t.choose("adjective", adjectives, held=grid), category="adjective", manner=manner, slot="epithet")
        t.say(t.choose("noun", nouns, held=grid), category="noun", manner=manner)
        t.say("!")
        if told < 1 or (told < 3 and t.choose("more", (True, False))):
            return sentence, (told + 1,)

    return Family("speakers", sentence, {"speakers": TaskSpec("epithet", "kind", several=True)})
