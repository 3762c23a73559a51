"""Repeated lists: words in no order, then the same words in the same order."""

from workbench.language.engine import Tracer
from workbench.language.families import Family, TaskSpec
from workbench.language.lexicon import LIST_WORDS
from workbench.language.splits import Grid

FEWEST, MOST = 4, 8  # words in a list
PASSES = 3


def build(seed: int) -> Family:
    """Build the family; the split holds out how a list begins: its first three words."""
    held = Grid(f"{seed}|lists", LIST_WORDS, LIST_WORDS, LIST_WORDS, allow=lambda a, b, c: len({a, b, c}) == 3)

    def begin(t: Tracer):
        t.say("List")
        t.say(":")
        words = ()
        for _ in range(3):
            word = t.choose("word", LIST_WORDS, held=held)
            t.say(word, category="noun")
            words = (*words, word)
        return extend, words

    def extend(t: Tracer, *words):
        word = t.choose("word", tuple(word for word in LIST_WORDS if word not in words))
        t.say(word, category="noun")
        words = (*words, word)
        if len(words) < FEWEST or (len(words) < MOST and t.choose("longer", (True, False), (2.0, 1.0))):
            return extend, words
        t.say(";")
        return repeat, (2, *words)

    def repeat(t: Tracer, count, *words):
        for word in words:
            t.say(word, category="noun", slot="repeat")
        if count < PASSES and t.choose("again", (True, False)):
            t.say(";")
            return repeat, (count + 1, *words)
        t.say(".")

    return Family("lists", begin, {"lists": TaskSpec("repeat", "word")}, weight=2.0)
