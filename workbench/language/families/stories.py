"""Stories: a topic, a sentiment, a tense and a number that persist from the first sentence to the last.

A tenth are written in the cipher tongue: of two topics and one hero, in the present, with fewer kinds of sentence.
"""

from workbench.language.engine import Tracer
from workbench.language.families import Family, TaskSpec
from workbench.language.lexicon import (
    ENDINGS,
    FEEL,
    FEELINGS,
    HE,
    MOODS,
    NAMES,
    NEAR,
    SEEKING,
    SHE,
    SIZES,
    TOPICS,
    article,
    be,
)
from workbench.language.splits import Grid
from workbench.language.vocabulary import CIPHER_TOPICS, TONGUE_WEIGHTS, TONGUES, spoken

NUMBERS = ("singular", "plural")
SENTENCES = ("going", "doing", "feeling", "seeking", "looking")
CIPHER_SENTENCES = SENTENCES[:3]
FEWEST, MOST = 2, 5  # sentences between the opening and the ending


def build(seed: int) -> Family:
    """Build the family; the split holds out what was sought and where each hero went."""
    sought = {name: Grid(f"{seed}|sought {name}", SEEKING, SIZES, topic.things) for name, topic in TOPICS.items()}
    gone = {name: Grid(f"{seed}|gone {name}", topic.verbs, NEAR, topic.places) for name, topic in TOPICS.items()}

    def begin(t: Tracer):
        return (opening if t.choose("tongue", TONGUES, TONGUE_WEIGHTS) == "plain" else cipher_opening), ()

    def cipher_opening(t: Tracer):
        t.scope(tense="present", tongue="cipher")
        t.say(spoken("Today", "cipher"))
        hero = t.choose("hero", NAMES)
        gender = "he" if hero in HE else "she"
        t.say(hero, category="name", gender=gender)
        t.say(spoken("is", "cipher"), category="verb", number="singular", slot="agreement")
        t.say(spoken("at", "cipher"))
        t.say(spoken("the", "cipher"))
        topic = t.choose("topic", CIPHER_TOPICS)
        t.say(spoken(t.choose("place", TOPICS[topic].places), "cipher"), category="place", topic=topic)
        t.say(".")
        sentiment = t.choose("sentiment", ("happy", "sad"))
        return cipher_middle, (topic, sentiment, "He" if gender == "he" else "She", 0)

    def cipher_middle(t: Tracer, topic, sentiment, pronoun, told):
        t.scope(topic=topic, sentiment=sentiment, tense="present", tongue="cipher")
        words = TOPICS[topic]

        def say(word: str, category: str, **labels: str) -> None:
            number = {"number": "singular"} if category == "verb" else {}
            t.say(spoken(word, "cipher"), category=category, **number, **labels)

        kind = t.choose("sentence", CIPHER_SENTENCES)
        t.say(spoken(pronoun, "cipher"), category="pronoun", number="singular")
        if kind == "going":
            say(t.choose("deed", words.verbs, held=gone[topic]).singular, "verb")
            t.say(spoken(t.choose("near", NEAR, held=gone[topic]), "cipher"))
            t.say(spoken("the", "cipher"))
            say(t.choose("where", words.places, held=gone[topic]), "place", slot="place")
        elif kind == "feeling":
            say(FEEL.singular, "verb")
            say(t.choose("feeling", FEELINGS[sentiment]), "adjective", slot="mood")
        else:
            first = t.choose("first deed", words.verbs)
            say(first.singular, "verb")
            t.say(spoken("and", "cipher"))
            say(t.choose("second deed", tuple(verb for verb in words.verbs if verb != first)).singular, "verb")
        t.say(".")
        if told < FEWEST or (told < MOST and t.choose("more", (True, False), (2.0, 1.0))):
            return cipher_middle, (topic, sentiment, pronoun, told + 1)

    def opening(t: Tracer):
        tense = t.choose("tense", ("present", "past"))
        t.scope(tense=tense, tongue="plain")
        t.say("Today" if tense == "present" else "Yesterday")
        hero = t.choose("hero", NAMES)
        gender = "he" if hero in HE else "she"
        t.say(hero, category="name", gender=gender)
        number = t.choose("number", NUMBERS)
        second = None
        if number == "plural":
            t.say("and")
            # The second name is of the other gender, so that two heroes are never the same.
            second = t.choose("second hero", SHE if gender == "he" else HE)
            t.say(second, category="name", gender="she" if gender == "he" else "he")
        t.say(be(tense, number), category="verb", number=number, slot="agreement")
        t.say("at")
        t.say("the")
        topic = t.choose("topic", tuple(TOPICS))
        t.say(t.choose("place", TOPICS[topic].places), category="place", topic=topic)
        t.say(".")
        sentiment = t.choose("sentiment", ("happy", "sad"))
        pronoun = "They" if number == "plural" else "He" if gender == "he" else "She"
        return middle, (topic, sentiment, tense, number, pronoun, 0)

    def middle(t: Tracer, topic, sentiment, tense, number, pronoun, told):
        story = (topic, sentiment, tense, number, pronoun)
        more = told < FEWEST or (told < MOST and t.choose("more", (True, False), (2.0, 1.0)))
        if not more:
            return ending, story
        t.scope(topic=topic, sentiment=sentiment, tense=tense, tongue="plain")
        words = TOPICS[topic]
        kind = t.choose("sentence", SENTENCES)
        if kind == "looking":
            seen = t.choose("seen number", NUMBERS)
            t.say("The")
            t.say(t.choose("seen", words.things).form(seen), category="noun", number=seen)
            t.say(be(tense, seen), category="verb", number=seen, slot="agreement")
            t.say(t.choose("look", MOODS[sentiment]), category="adjective", slot="mood")
        else:
            t.say(pronoun, category="pronoun", number=number)
            if kind == "seeking":
                seek = t.choose("seek", SEEKING, held=sought[topic])
                t.say(seek.form(tense, number), category="verb", number=number)
                size = t.choose("size", SIZES, held=sought[topic])
                found = t.choose("found number", NUMBERS)
                t.say(article(size) if found == "singular" else "some")
                t.say(size, category="adjective")
                thing = t.choose("thing", words.things, held=sought[topic])
                t.say(thing.form(found), category="noun", number=found)
            elif kind == "going":
                verb = t.choose("deed", words.verbs, held=gone[topic])
                t.say(verb.form(tense, number), category="verb", number=number)
                t.say(t.choose("near", NEAR, held=gone[topic]))
                t.say("the")
                t.say(t.choose("where", words.places, held=gone[topic]), category="place", slot="place")
            elif kind == "feeling":
                t.say(FEEL.form(tense, number), category="verb", number=number)
                t.say(t.choose("feeling", FEELINGS[sentiment]), category="adjective", slot="mood")
            else:
                first = t.choose("first deed", words.verbs)
                t.say(first.form(tense, number), category="verb", number=number)
                t.say("and")
                rest = tuple(verb for verb in words.verbs if verb != first)
                t.say(t.choose("second deed", rest).form(tense, number), category="verb", number=number)
        t.say(".")
        return middle, (*story, told + 1)

    def ending(t: Tracer, topic, sentiment, tense, number, pronoun):
        t.scope(topic=topic, sentiment=sentiment, tense=tense, tongue="plain")
        if t.choose("ending", ("deed", "day")) == "deed":
            t.say("At")
            t.say("the")
            t.say("end")
            t.say(pronoun.lower(), category="pronoun", number=number)
            verb = t.choose("last deed", ENDINGS[sentiment])
            t.say(verb.form(tense, number), category="verb", number=number)
        else:
            t.say("It")
            t.say(be(tense, "singular"), category="verb", number="singular")
            mood = t.choose("mood", MOODS[sentiment])
            t.say(article(mood))
            t.say(mood, category="adjective", slot="mood")
            t.say("day")
        t.say(".")

    tasks = {
        "tense": TaskSpec("agreement", "tense"),
        "topic": TaskSpec("place", "topic", several=True),
        "sentiment": TaskSpec("mood", "sentiment", several=True),
    }
    return Family("stories", begin, tasks, weight=2.0)
