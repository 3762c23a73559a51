"""The labels a token can carry: each a column, each with its declared values."""

from workbench.language.lexicon import COUNTRIES, FUNCTIONS, MANNERS, STATES_OF_MACHINE, TAXONOMY, TOPICS, TRADES, YEARS
from workbench.language.vocabulary import TONGUES, spoken

FAMILIES = tuple(
    "stories agreement indirect_object functions facts lists taxonomy greater_than docstring calendar speakers "
    "brackets machine map code professions".split()
)
ROLES = tuple(
    "subject distractor giver receiver gift input output member country start end routine argument speaker left right "
    "variable".split()
)
SLOTS = (
    *"agreement receiver output answer repeat kind verdict argument day month epithet profession".split(),
    *("close", "state", "town", "date", "value", "later year", "place", "mood"),
)
TRUTHS = {value for facts in COUNTRIES.values() for value in facts.values()}

LABELS: dict[str, tuple[str, ...]] = {
    "family": FAMILIES,
    "tongue": TONGUES,
    "category": ("noun", "verb", "adjective", "name", "pronoun", "adverb", "place", "number"),
    "number": ("singular", "plural"),
    "topic": tuple(TOPICS),
    "sentiment": ("happy", "sad"),
    "tense": ("present", "past"),
    "gender": ("he", "she"),
    "role": (*ROLES, "own tool", "shared tool"),
    "function": tuple(FUNCTIONS),
    "relation": ("capital", "language"),
    "kind": tuple(name for classes in TAXONOMY.values() for name in classes),
    "larger": tuple(TAXONOMY),
    "template": tuple("123456"),
    "truth": tuple(sorted(TRUTHS | {spoken(value, "cipher") for value in TRUTHS})),
    "year": YEARS,
    "east": tuple("12345"),
    "north": tuple("12345"),
    "depth": tuple("1234"),
    "state": STATES_OF_MACHINE,
    "speaker": tuple(MANNERS),
    "manner": tuple(MANNERS),
    "profession": tuple(trade.name for pair in TRADES.values() for trade in pair),
    "slot": SLOTS,
}
"""Column → its values. ``slot`` marks the positions where the language asks for something in particular;
``truth`` names the true answer where a fact is stated, which is not always what is written."""
