"""The words of the built-in language and what is known about them.

Everything here is data. A family picks its words from these tables; the vocabulary is all of them together.
"""

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

YEARS = tuple(str(year) for year in range(10, 50))
"""The two digits that end a year."""
CENTURIES = tuple(str(century) for century in range(12, 19))
SPANS = ("war", "siege", "voyage", "reign", "drought", "trial", "strike", "truce")

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = tuple("January February March April May June July August September October November December".split())
COUNTS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")

ROUTINES = ("load", "save", "send", "parse", "merge", "sort", "scan", "pack")
ARGUMENTS = tuple("files state size shape option label port root user data mode path index limit".split())
ARGUMENT_SIZES = ("main", "local", "first", "last")
ARGUMENT_KINDS = ("list", "number", "string", "flag")

SPEAKERS: dict[str, tuple[str, ...]] = {
    "rude": ("pirate", "bully", "ogre", "goblin", "bandit", "villain"),
    "polite": ("butler", "monk", "queen", "nun", "gardener", "knight"),
}
MANNERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "rude": (
        ("stupid", "rotten", "filthy", "lazy", "useless", "greedy"),
        ("fool", "oaf", "dolt", "nitwit", "wretch", "scoundrel"),
    ),
    "polite": (
        ("kind", "noble", "gentle", "honest", "brave", "clever"),
        ("friend", "guest", "sir", "fellow", "companion", "master"),
    ),
}
ORDERS = ("bring", "take", "fetch", "carry", "hold", "find")


class Trade(NamedTuple):
    """A profession, the gender that stereotype gives it, and the tools that give it away."""

    name: str
    gender: str
    tools: tuple[str, str]


TRADES: dict[tuple[str, str], tuple[Trade, Trade]] = {
    ("hospital", "chart"): (
        Trade("nurse", "she", ("syringe", "bandage")),
        Trade("surgeon", "he", ("scalpel", "clamp")),
    ),
    ("kitchen", "towel"): (Trade("maid", "she", ("broom", "duster")), Trade("chef", "he", ("skillet", "ladle"))),
    ("studio", "radio"): (Trade("dancer", "she", ("fan", "veil")), Trade("sculptor", "he", ("chisel", "mallet"))),
    ("airport", "ticket"): (
        Trade("hostess", "she", ("trolley", "tray")),
        Trade("pilot", "he", ("compass", "headset")),
    ),
    ("workshop", "bench"): (Trade("weaver", "she", ("loom", "shuttle")), Trade("welder", "he", ("torch", "visor"))),
    ("court", "folder"): (Trade("typist", "she", ("keyboard", "stapler")), Trade("lawyer", "he", ("brief", "robe"))),
}
"""Workplace and the tool that both of its trades use → the two trades."""

BRACKETS = {"(": ")", "[": "]", "{": "}"}
OPERATORS = ("add", "subtract", "multiply", "divide")

STATES_OF_MACHINE = ("idle", "awake", "eager", "angry", "asleep")
SIGNALS = ("beep", "horn", "whistle", "gong")

TOWNS = (
    ("Arden", "Brock", "Corwen", "Dunmore", "Elswick"),
    ("Fenton", "Gorley", "Hexham", "Ilford", "Jarrow"),
    ("Kelso", "Ludlow", "Malton", "Norbury", "Oakham"),
    ("Penrith", "Quorn", "Ripley", "Selby", "Tarland"),
    ("Upton", "Verwood", "Wickham", "Yarm", "Zennor"),
)
"""Where the towns lie: rows from north to south, each from west to east."""
DIRECTIONS = {"north": (-1, 0), "south": (1, 0), "east": (0, 1), "west": (0, -1)}
DATES: dict[str, str] = {
    event: year
    for event, year in (
        row.split("/")
        for row in (
            "flood/11 eclipse/13 famine/16 revolt/18 wedding/20 census/23 earthquake/25 treaty/27 storm/30 "
            "coronation/32 exodus/34 jubilee/37 election/40 blizzard/43 epidemic/45 armistice/48"
        ).split()
    )
}
"""Event → the two digits of its year, all of one century."""
CENTURY = "17"

VARIABLES = ("i", "j", "k", "m", "n")
DIGITS = tuple("0123456789")
