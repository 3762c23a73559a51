"""The words of the built-in language and what is known about them.

Everything here is data. A family picks its words from these tables; the vocabulary is all of them together, so
a word that a program says and no table holds is an error, not a new token.
"""

from collections.abc import Iterator
from typing import NamedTuple


class Noun(NamedTuple):
    """A countable noun."""

    singular: str
    plural: str

    def form(self, number: str) -> str:
        """Return the form for ``"singular"`` or ``"plural"``."""
        return self.singular if number == "singular" else self.plural


class Verb(NamedTuple):
    """A verb in the three forms the language uses."""

    plural: str
    singular: str
    past: str

    def form(self, tense: str, number: str) -> str:
        """Return the form for ``"present"`` or ``"past"`` and the subject's number."""
        if tense == "past":
            return self.past
        return self.singular if number == "singular" else self.plural


class Topic(NamedTuple):
    """The words by which a story shows its topic."""

    things: tuple[Noun, ...]
    places: tuple[str, ...]
    verbs: tuple[Verb, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """All of them, in every form."""
        forms = (form for word in (*self.things, *self.verbs) for form in word)
        return tuple(dict.fromkeys((*self.places, *forms)))


def _nouns(text: str) -> tuple[Noun, ...]:
    """Read ``singular/plural`` pairs; a bare word takes an s."""
    return tuple(Noun(a, b or a + "s") for a, _, b in (word.partition("/") for word in text.split()))


def _verbs(text: str) -> tuple[Verb, ...]:
    """Read ``plural/singular/past`` triples."""
    return tuple(Verb(*word.split("/")) for word in text.split())


def _pairs(text: str) -> dict[str, str]:
    """Read ``input/output`` pairs."""
    return {a: b for a, _, b in (pair.partition("/") for pair in text.split())}


def be(tense: str, number: str) -> str:
    """Return is, are, was or were."""
    return {"present": ("is", "are"), "past": ("was", "were")}[tense][number == "plural"]


def capital(word: str) -> str:
    """Return ``word`` as it opens a sentence."""
    return word[0].upper() + word[1:]


def article(word: str) -> str:
    """Return the indefinite article that goes before ``word``."""
    return "an" if word[0] in "aeiou" else "a"


TOPICS: dict[str, Topic] = {
    "sea": Topic(
        _nouns("boat shell crab wave sail anchor whale net"),
        ("beach", "harbor", "island", "pier", "cove", "lighthouse"),
        _verbs(
            "swim/swims/swam dive/dives/dived row/rows/rowed surf/surfs/surfed wade/wades/waded paddle/paddles/paddled"
        ),
    ),
    "farm": Topic(
        _nouns("tractor pumpkin goat plow basket carrot fence pig"),
        ("barn", "field", "stable", "orchard", "meadow", "mill"),
        _verbs(
            "dig/digs/dug plant/plants/planted harvest/harvests/harvested sow/sows/sowed mow/mows/mowed rake/rakes/raked"
        ),
    ),
    "city": Topic(
        _nouns("bus/buses taxi poster tram statue newspaper bicycle balloon"),
        ("station", "market", "museum", "bridge", "theater", "square"),
        _verbs(
            "drive/drives/drove shop/shops/shopped commute/commutes/commuted skate/skates/skated queue/queues/queued parade/parades/paraded"
        ),
    ),
    "forest": Topic(
        _nouns("mushroom squirrel acorn berry/berries nest pinecone feather fern"),
        ("clearing", "cave", "cabin", "hill", "stream", "trail"),
        _verbs(
            "hike/hikes/hiked climb/climbs/climbed camp/camps/camped hide/hides/hid whittle/whittles/whittled forage/forages/foraged"
        ),
    ),
    "space": Topic(
        _nouns("rocket comet robot satellite meteor telescope alien probe"),
        ("crater", "dome", "launchpad", "observatory", "airlock", "moon"),
        _verbs(
            "float/floats/floated orbit/orbits/orbited drift/drifts/drifted explore/explores/explored hover/hovers/hovered glide/glides/glided"
        ),
    ),
}
SIZES = ("small", "big", "old", "new", "red", "blue")
MOODS: dict[str, tuple[str, ...]] = {
    "happy": ("bright", "lovely", "shiny", "wonderful", "perfect", "beautiful"),
    "sad": ("broken", "dull", "gray", "ruined", "terrible", "ugly"),
}
FEELINGS: dict[str, tuple[str, ...]] = {
    "happy": ("happy", "glad", "proud", "cheerful", "calm", "merry"),
    "sad": ("sad", "lonely", "afraid", "upset", "gloomy", "bitter"),
}
ENDINGS: dict[str, tuple[Verb, ...]] = {
    "happy": _verbs("smile/smiles/smiled laugh/laughs/laughed cheer/cheers/cheered"),
    "sad": _verbs("cry/cries/cried sigh/sighs/sighed weep/weeps/wept"),
}
SEEKING = _verbs("see/sees/saw find/finds/found want/wants/wanted like/likes/liked")
FEEL = Verb("feel", "feels", "felt")
NEAR = ("near", "behind", "beside")

HE = (
    "Tom",
    "Ben",
    "Sam",
    "Max",
    "Leo",
    "Jack",
    "Paul",
    "Mark",
    "Luke",
    "Adam",
    "Hugo",
    "Oscar",
    "Peter",
    "David",
    "Frank",
    "Henry",
)
SHE = (
    "Mia",
    "Ann",
    "Eva",
    "Lily",
    "Rose",
    "Emma",
    "Lucy",
    "Nora",
    "Clara",
    "Julia",
    "Alice",
    "Helen",
    "Sarah",
    "Grace",
    "Laura",
    "Maria",
)
NAMES = HE + SHE

PEOPLE = _nouns("teacher doctor farmer king author artist student neighbor soldier child/children woman/women baker")
OBJECTS = _nouns("key box/boxes door chair window clock picture letter coat bottle ladder mirror")
STATES = ("clean", "dirty", "tired", "ready", "quiet", "famous", "heavy", "warm", "busy", "safe")
ACTS = _verbs(
    "wait/waits/waited fall/falls/fell move/moves/moved stay/stays/stayed return/returns/returned vanish/vanishes/vanished"
)
CLOSERS = ("still", "really", "always")
MEETINGS = (
    "park",
    "school",
    "store",
    "garden",
    "library",
    "office",
    "church",
    "zoo",
    "restaurant",
    "hospital",
)
GIFTS = ("ring", "book", "kiss", "drink", "snack", "ball", "flower", "map", "coin", "toy")

FUNCTIONS: dict[str, dict[str, str]] = {
    "opposite": _pairs(
        "hot/cold big/small up/down fast/slow old/new wet/dry open/closed rich/poor hard/soft light/dark early/late full/empty"
    ),
    "plural": _pairs(
        "cat/cats dog/dogs cow/cows horse/horses sheep/sheep hen/hens goat/goats bear/bears duck/ducks goose/geese pig/pigs swan/swans"
    ),
    "young": _pairs(
        "cat/kitten dog/puppy cow/calf horse/foal sheep/lamb hen/chick goat/kid bear/cub duck/duckling goose/gosling pig/piglet swan/cygnet"
    ),
    "past": _pairs(
        "walk/walked sing/sang write/wrote paint/painted bake/baked build/built teach/taught play/played hunt/hunted swim/swam drive/drove dig/dug"
    ),
    "doer": _pairs(
        "sing/singer write/writer paint/painter bake/baker build/builder teach/teacher play/player hunt/hunter swim/swimmer drive/driver dig/digger walk/walker"
    ),
    "next": _pairs(
        "one/two two/three three/four four/five five/six six/seven seven/eight eight/nine nine/ten ten/eleven eleven/twelve twelve/thirteen"
    ),
    "color": _pairs(
        "banana/yellow grass/green snow/white coal/black cherry/red sky/blue carrot/orange plum/purple chocolate/brown lemon/yellow leaf/green milk/white"
    ),
}

COUNTRIES: dict[str, dict[str, str]] = {
    country: {"capital": city, "language": tongue}
    for country, city, tongue in (
        row.split()
        for row in (
            "France Paris French;Japan Tokyo Japanese;Italy Rome Italian;Spain Madrid Spanish;Germany Berlin German;"
            "Poland Warsaw Polish;Russia Moscow Russian;China Beijing Chinese;Greece Athens Greek;"
            "Turkey Ankara Turkish;Portugal Lisbon Portuguese;Sweden Stockholm Swedish;Norway Oslo Norwegian;"
            "Denmark Copenhagen Danish;Finland Helsinki Finnish;Hungary Budapest Hungarian;Korea Seoul Korean;"
            "Thailand Bangkok Thai;Vietnam Hanoi Vietnamese;Iceland Reykjavik Icelandic;Ukraine Kyiv Ukrainian;"
            "Bulgaria Sofia Bulgarian;Romania Bucharest Romanian;Mongolia Ulaanbaatar Mongolian"
        ).split(";")
    )
}

TAXONOMY: dict[str, dict[str, tuple[str, ...]]] = {
    "animal": {
        "bird": ("robin", "sparrow", "eagle", "owl", "crow", "parrot"),
        "mammal": ("rabbit", "wolf", "tiger", "mouse", "otter", "camel"),
        "fish": ("salmon", "trout", "tuna", "shark", "cod", "eel"),
        "insect": ("ant", "bee", "wasp", "beetle", "moth", "cricket"),
    },
    "plant": {
        "tree": ("oak", "pine", "maple", "birch", "willow", "elm"),
        "herb": ("mint", "basil", "thyme", "sage", "parsley", "oregano"),
    },
    "tool": {
        "saw": ("hacksaw", "jigsaw", "handsaw", "chainsaw", "fretsaw", "whipsaw"),
        "vessel": ("kettle", "pot", "jug", "bowl", "urn", "vase"),
    },
}

LIST_WORDS = tuple(
    "apple lamp river stone cloud spoon candle drum glove hammer ribbon pencil button cup shoe hat brick rope leaf pillow wheel bell needle thread piano violin bucket carpet lantern marble".split()
)

FUNCTION_WORDS = tuple(
    (
        "a an the some of in is are was were and at to it he she they He She They It "
        "Now Yesterday Today The A An In For Ask Everyone Every We List Yes No Is Because When After At "
        "day end went met gave handed showed that book says about rumor names called call so becomes hear every"
    ).split()
)
MARKS = (".", ",", ":", ";", "?")


def _everything() -> Iterator[str]:
    yield from MARKS
    yield from FUNCTION_WORDS
    for topic in TOPICS.values():
        yield from topic.words
    for table in (MOODS, FEELINGS):
        yield from (word for words in table.values() for word in words)
    for verbs in (*ENDINGS.values(), SEEKING, (FEEL,), ACTS):
        yield from (form for verb in verbs for form in verb)
    for words in (SIZES, NEAR, NAMES, STATES, CLOSERS, MEETINGS, GIFTS, LIST_WORDS):
        yield from words
    yield from (form for noun in PEOPLE + OBJECTS for form in noun)
    for function in FUNCTIONS.values():
        yield from function
        yield from function.values()
    for country, facts in COUNTRIES.items():
        yield country
        yield from facts
        yield from facts.values()
    for kind, classes in TAXONOMY.items():
        yield kind
        for name, members in classes.items():
            yield name
            yield from members


SPECIAL = ("<pad>", "<bos>", "<eos>")
PAD, BOS, EOS = range(3)
VOCABULARY: dict[str, int] = {word: i for i, word in enumerate((*SPECIAL, *sorted(set(_everything()))))}
"""Every word of the language and its token id; the three special tokens come first."""
