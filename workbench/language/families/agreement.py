"""Subject–verb agreement across distractors: the verb obeys the first noun, not the nearest."""

from workbench.language.engine import Tracer
from workbench.language.families import Family, TaskSpec
from workbench.language.lexicon import ACTS, CLOSERS, NEAR, OBJECTS, PEOPLE, STATES, be
from workbench.language.splits import Grid

NOUNS = PEOPLE + OBJECTS
NUMBERS = ("singular", "plural")


def build(seed: int) -> Family:
    """Build the family; the split holds out subject × first distractor × what is said of them."""
    plain = Grid(f"{seed}|agreement plain", NOUNS, NUMBERS, STATES)
    far = Grid(f"{seed}|agreement far", NOUNS, NOUNS, STATES)

    def sentence(t: Tracer, told=0):
        tense = t.choose("tense", ("present", "past"))
        t.scope(tense=tense)
        t.say("Now" if tense == "present" else "Yesterday")
        t.say("the")
        distance = t.choose("distractors", (0, 1, 2))
        held = far if distance else plain
        subject = t.choose("subject", NOUNS, held=held)
        number = t.choose("number", NUMBERS, held=None if distance else plain)
        t.say(subject.form(number), category="noun", number=number, role="subject")
        for i in range(distance):
            t.say(t.choose("near", NEAR))
            t.say("the")
            noun = t.choose("distractor", NOUNS, held=None if i else far)
            other = t.choose("distractor number", NUMBERS)
            t.say(noun.form(other), category="noun", number=other, role="distractor")
        predicate = t.choose("predicate", ("closed state", "state", "act"))
        if predicate == "act":
            verb = t.choose("act", ACTS)
            t.say(verb.form(tense, number), category="verb", number=number, slot="agreement")
        else:
            # An adverb says that the subject is complete, so that the verb after it is the only word possible.
            if predicate == "closed state":
                t.say(t.choose("adverb", CLOSERS), category="adverb")
            t.say(be(tense, number), category="verb", number=number, slot="agreement")
            t.say(t.choose("state", STATES, held=held), category="adjective")
        t.say(".")
        if told < 1 or (told < 2 and t.choose("more", (True, False))):
            return sentence, (told + 1,)

    return Family("agreement", sentence, {"agreement": TaskSpec("agreement", "number")})
