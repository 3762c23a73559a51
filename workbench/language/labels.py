"""The labels a token can carry: each a column, each with its declared values."""

from workbench.language.lexicon import COUNTRIES, FUNCTIONS, TAXONOMY, TOPICS

FAMILIES = ("stories", "agreement", "indirect_object", "functions", "facts", "lists", "taxonomy")

LABELS: dict[str, tuple[str, ...]] = {
    "family": FAMILIES,
    "category": ("noun", "verb", "adjective", "name", "pronoun", "adverb", "place"),
    "number": ("singular", "plural"),
    "topic": tuple(TOPICS),
    "sentiment": ("happy", "sad"),
    "tense": ("present", "past"),
    "gender": ("he", "she"),
    "role": ("subject", "distractor", "giver", "receiver", "gift", "input", "output", "member", "country"),
    "function": tuple(FUNCTIONS),
    "relation": ("capital", "language"),
    "kind": tuple(name for classes in TAXONOMY.values() for name in classes),
    "template": tuple("123456"),
    "truth": tuple(sorted({value for facts in COUNTRIES.values() for value in facts.values()})),
    "slot": ("agreement", "receiver", "output", "answer", "repeat", "kind", "verdict"),
}
"""Column → its values. ``slot`` marks the positions where the language asks for something in particular;
``truth`` names the true answer where a fact is stated, which is not always what is written."""
