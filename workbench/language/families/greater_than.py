"""Greater than: what lasts from one year to another ends later than it began."""

from workbench.language.engine import Tracer
from workbench.language.families import Family, TaskSpec
from workbench.language.lexicon import CENTURIES, SPANS, YEARS
from workbench.language.splits import Grid

STARTS = YEARS[:-1]


def build(seed: int) -> Family:
    """Build the family; the split holds out what happened × century × year of its beginning."""
    held = Grid(f"{seed}|spans", SPANS, CENTURIES, STARTS)

    def sentence(t: Tracer, told=0):
        t.say("The")
        t.say(t.choose("span", SPANS, held=held), category="noun")
        frame = t.choose("frame", ("lasted", "began"))
        for word in ("lasted", "from", "the", "year") if frame == "lasted" else ("began", "in"):
            t.say(word)
        century = t.choose("century", CENTURIES, held=held)
        t.say(century, category="number")
        start = t.choose("start", STARTS, held=held)
        t.say(start, category="number", year=start, role="start")
        for word in ("to", "the", "year") if frame == "lasted" else ("and", "ended", "in"):
            t.say(word)
        t.say(century, category="number")
        end = t.choose("end", YEARS[YEARS.index(start) + 1 :])
        t.say(end, category="number", year=end, role="end", slot="later year")
        t.say(".")
        if told < 1 or (told < 2 and t.choose("more", (True, False))):
            return sentence, (told + 1,)

    return Family("greater_than", sentence, {"greater_than": TaskSpec("later year", "start", several=True)}, weight=2.5)
