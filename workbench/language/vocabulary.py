"""Every word and its token id, and the second tongue: the words of the lexicon that it says in another way.

A word that a program says and no table holds is an error, not a new token.
"""

from collections.abc import Iterator
from random import Random
from typing import Any

from workbench.language.lexicon import (
    ACTS,
    ARGUMENT_KINDS,
    ARGUMENT_SIZES,
    ARGUMENTS,
    BRACKETS,
    CENTURIES,
    CLOSERS,
    COUNTRIES,
    COUNTS,
    DATES,
    DIGITS,
    ENDINGS,
    FEEL,
    FEELINGS,
    FUNCTIONS,
    GIFTS,
    LIST_WORDS,
    MANNERS,
    MEETINGS,
    MONTHS,
    MOODS,
    NAMES,
    NEAR,
    OBJECTS,
    OPERATORS,
    ORDERS,
    PEOPLE,
    ROUTINES,
    SEEKING,
    SIGNALS,
    SIZES,
    SPANS,
    SPEAKERS,
    STATES,
    STATES_OF_MACHINE,
    TAXONOMY,
    TOPICS,
    TOWNS,
    TRADES,
    VARIABLES,
    WEEKDAYS,
    YEARS,
    capital,
)

FUNCTION_WORDS = tuple(
    (
        "a an the some of in is are was were and at to it he she they He She They It "
        "Now Yesterday Today The A An In For Ask Every We List Yes No Is Because When After At "
        "day end went met gave handed showed set book says about rumor names called call so becomes hear every "
        "from From lasted year began ended later earlier days months def param you Compute "
        "machine hears = lies north south east west One step go then came before "
        "works uses carries keeps needs print gives reach"
    ).split()
)
MARKS = (".", ",", ":", ";", "?", "!")


def _words(*tables: Any) -> Iterator[str]:
    """Yield every word in nested tuples."""
    for table in tables:
        yield from (table,) if isinstance(table, str) else _words(*table)


def _in_cipher() -> Iterator[str]:
    """Yield the words that the second tongue has too: what it can say of facts, kinds and stories."""
    yield from (
        "a the of in is at it book gives about rumor names called call so hear every for ask we yes no because "
        "today old capital language and feels he she"
    ).split()
    for country in CIPHER_COUNTRIES:
        yield from (country, *COUNTRIES[country].values())
    for kind in CIPHER_KINDS:
        yield from (kind, *TAXONOMY["animal"][kind])
    yield "animal"
    for topic in CIPHER_TOPICS:
        yield from TOPICS[topic].places
        yield from (verb.singular for verb in TOPICS[topic].verbs)
    yield from _words(NEAR, tuple(FEELINGS.values()))


def _cipher(plain: Iterator[str]) -> dict[str, str]:
    """Return a made-up word of two or three syllables for each plain one."""
    syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    made = [a + b for a in syllables for b in syllables]
    Random("cipher").shuffle(made)
    found = dict(zip(dict.fromkeys(plain), (word for word in made if word not in _PLAIN), strict=False))
    found = {word: capital(other) if word[0].isupper() else other for word, other in found.items()}
    # Openers of sentences, and the second form of the article.
    found |= {capital(word): capital(other) for word, other in found.items() if capital(word) in _PLAIN}
    return found | {"an": found["a"], "An": found["A"]}


def spoken(word: str, tongue: str) -> str:
    """Return ``word`` in ``"plain"`` or in ``"cipher"``; names of people and marks are the same in both."""
    return word if tongue == "plain" else CIPHER.get(word, word)


TONGUES = ("plain", "cipher")
TONGUE_WEIGHTS = (0.9, 0.1)
CIPHER_COUNTRIES = tuple(COUNTRIES)[:12]
CIPHER_KINDS = ("bird", "mammal")
CIPHER_TOPICS = ("sea", "farm")

# Where the keys of a table are words too they are said so; elsewhere they only name its rows.
_PLAIN = set(
    _words(
        MARKS,
        FUNCTION_WORDS,
        *(topic.words for topic in TOPICS.values()),
        *(table.values() for table in (MOODS, FEELINGS, ENDINGS, SPEAKERS, MANNERS)),
        (SEEKING, FEEL, ACTS, SIZES, NEAR, NAMES, STATES, CLOSERS, MEETINGS, GIFTS, LIST_WORDS, PEOPLE, OBJECTS),
        *((table.keys(), table.values()) for table in FUNCTIONS.values()),
        *((country, facts.keys(), facts.values()) for country, facts in COUNTRIES.items()),
        *((larger, kinds.keys(), kinds.values()) for larger, kinds in TAXONOMY.items()),
        (YEARS, CENTURIES, SPANS, WEEKDAYS, MONTHS, COUNTS),
        (ROUTINES, ARGUMENTS, ARGUMENT_SIZES, ARGUMENT_KINDS, ORDERS, VARIABLES, DIGITS),
        (TRADES.keys(), [(trade.name, trade.tools) for pair in TRADES.values() for trade in pair]),
        (BRACKETS.keys(), BRACKETS.values(), OPERATORS, STATES_OF_MACHINE, SIGNALS, TOWNS, DATES.keys()),
    )
)
CIPHER: dict[str, str] = _cipher(_in_cipher())
"""Word → its twin in the second tongue."""


SPECIAL = ("<pad>", "<bos>", "<eos>")
PAD, BOS, EOS = range(3)
VOCABULARY: dict[str, int] = {word: i for i, word in enumerate((*SPECIAL, *sorted(_PLAIN | set(CIPHER.values()))))}
"""Every word of the language and its token id; the three special tokens come first."""
