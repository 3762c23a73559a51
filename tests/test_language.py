"""The language: its oracle is exact (three independent ways), its documents reproducible, its truth consistent."""

import re
import secrets
import subprocess
import sys
from itertools import product
from random import Random

import pytest
import torch
from scipy.stats import binomtest, rankdata

from workbench.language import Language, build_tokenizer
from workbench.language.ceilings import ceilings
from workbench.language.documents import WORDS
from workbench.language.engine import State, Tracer
from workbench.language.labels import FAMILIES, LABELS
from workbench.language.lexicon import TRADES
from workbench.language.oracle import Oracle
from workbench.language.splits import SPLITS, Grid, check_split
from workbench.language.vocabulary import BOS, CIPHER, EOS, PAD, VOCABULARY


@pytest.fixture(scope="module")
def language():
    return Language(0)


def ids_of(documents, i):
    return documents.tokens[i, : documents.lengths[i]]


# Exactness, first way: brute force. A program is run to its end for every sequence of choices there is.


class Exhaustive(Tracer):
    """The most naive tracer: choices are read from a list; what lies beyond it is put on a to-do list."""

    def __init__(self, given):
        self.given, self.made, self.words, self.chosen = given, 0, [], []
        self.probability, self.more = 1.0, None

    def choose(self, name, options, weights=None, *, held=None):
        # Grids count as uniform here: the split is applied to whole executions afterwards, by rejection.
        weights = weights or [1.0] * len(options)
        if self.made == len(self.given):
            self.more = len(options)
            raise StopIteration
        index = self.given[self.made]
        self.made += 1
        self.probability *= weights[index] / sum(weights)
        self.chosen.append((held, index))
        return options[index]

    def say(self, word, **labels):
        self.words.append(word)

    def scope(self, **labels):
        pass


def every_execution(start):
    """Yield (probability, words, cells) of every execution of a whole program."""
    todo = [()]
    while todo:
        given = todo.pop()
        tracer = Exhaustive(given)
        try:
            following = (start, ())
            while following is not None:
                following = following[0](tracer, *following[1])
        except StopIteration:
            todo.extend((*given, i) for i in range(tracer.more))
            continue
        cells = {}
        for held, index in tracer.chosen:
            if held is not None:
                cells.setdefault(held, []).append(index)
        yield tracer.probability, tuple(tracer.words), cells


def conditional(executions, split, prefix):
    """Return P(next word | prefix) by counting executions; a split keeps some cells of a grid, equally likely."""
    found = {}
    for probability, words, cells in executions:
        kept = all(grid.members(split)[tuple(cell)] for grid, cell in cells.items() if len(cell) == len(grid.slots))
        if kept and words[: len(prefix)] == prefix:
            for grid in cells:
                probability *= grid.members("all").size / grid.members(split).sum()
            following = words[len(prefix)] if len(words) > len(prefix) else None
            found[following] = found.get(following, 0.0) + probability
    total = sum(found.values())
    return {word: p / total for word, p in found.items()}


NAMED = tuple("Tom Ben Sam Max Leo Jack".split())
PLACES = ("beach", "barn", "moon")
SEEN = ("boat", "goat", "comet", "nest", "taxi")


def hidden_state(t, left=2):
    """Hidden choices that show late, unequal weights, two executions with the same words."""
    secret = t.choose("secret", (0, 1, 2), (1.0, 2.0, 5.0))
    t.say(t.choose("opening", ("red", "blue") if secret else ("red", "old")))
    t.say(("boat", "goat", "goat")[secret])
    if left and t.choose("more", (True, False), (3.0, 1.0)):
        return hidden_state, (left - 1,)


def with_grid(t):
    """A held-out product of three slots, with words between the slots and a cell that does not exist."""
    who = t.choose("who", NAMED, held=GRID)
    t.say(who)
    t.say(t.choose("polite", ("went", "met")))
    where = t.choose("where", PLACES, held=GRID)
    t.say(where)
    t.say(t.choose("what", SEEN, held=GRID))
    return hidden_state, (0,)


def late_grid(t):
    """The first slot of the grid is chosen before anything is said and shows only at the end."""
    who = t.choose("who", NAMED, held=GRID)
    t.say(t.choose("where", PLACES, held=GRID))
    t.say(t.choose("what", SEEN, held=GRID))
    t.say(who)


GRID = Grid("a test", NAMED, PLACES, SEEN, allow=lambda who, where, what: (who, where) != ("Tom", "barn"))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("program", [hidden_state, with_grid, late_grid])
def test_the_oracle_equals_brute_force_on_small_programs(program, split):
    executions = [e for e in every_execution(program) if all(g.members("all")[tuple(c)] for g, c in e[2].items())]
    oracle = Oracle({State(program, ()): ("stories", 1.0)}, VOCABULARY, split)
    prefixes = {words[:n] for _, words, _ in executions for n in range(len(words) + 1)}
    checked = 0
    for prefix in sorted(prefixes):
        expected = conditional(executions, split, prefix) if _possible(executions, split, prefix) else {}
        exact = oracle.next_token([BOS, *(VOCABULARY[w] for w in prefix)])[-1]
        wanted = torch.zeros(len(VOCABULARY), dtype=torch.float64)
        for word, probability in expected.items():
            wanted[EOS if word is None else VOCABULARY[word]] = probability
        assert torch.allclose(exact, wanted, rtol=0, atol=1e-12), prefix
        checked += bool(expected)
    assert checked > 10


def _possible(executions, split, prefix):
    return any(
        words[: len(prefix)] == prefix
        and all(g.members(split)[tuple(c)] for g, c in cells.items() if len(c) == len(g.slots))
        for _, words, cells in executions
    )


class Pruned(Tracer):
    """The same for whole documents: an execution is dropped at the first word that differs from the prefix."""

    def __init__(self, given, prefix):
        self.given, self.prefix, self.made, self.said = given, prefix, 0, 0
        self.probability, self.more, self.word, self.cells, self.step = 1.0, 0, None, {}, 0

    def choose(self, name, options, weights=None, *, held=None):
        if self.made == len(self.given):
            self.more = len(options)
            raise StopIteration
        index = self.given[self.made]
        self.made += 1
        if held is None:
            weights = weights or [1.0] * len(options)
            self.probability *= weights[index] / sum(weights)
        else:  # cells are made slot by slot; what the split thinks of them is asked at the end
            self.cells.setdefault((self.step, held), []).append(index)
        return options[index]

    def say(self, word, **labels):
        if self.said == len(self.prefix):
            self.word = word
            raise StopIteration
        if word != self.prefix[self.said]:
            self.probability = 0.0
            raise StopIteration
        self.said += 1

    def scope(self, **labels):
        pass


def next_words(start, prefix, split):
    """Return P(next word | prefix) by running every execution that says ``prefix``."""
    found, todo = {}, [()]
    while todo:
        given = todo.pop()
        tracer = Pruned(given, prefix)
        try:
            following = (start, ())
            while following is not None:
                following = following[0](tracer, *following[1])
                tracer.step += 1
            tracer.probability *= tracer.said == len(prefix)
        except StopIteration:
            if tracer.more:
                todo.extend((*given, i) for i in range(tracer.more))
                continue
        for (_, grid), cell in tracer.cells.items():
            members = grid.members(split)
            tracer.probability *= members[tuple(cell)].sum() / members.sum()
        if tracer.probability > 0:
            found[tracer.word] = found.get(tracer.word, 0.0) + tracer.probability
    total = sum(found.values())
    return {word: p / total for word, p in found.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("split", SPLITS)
def test_the_oracle_equals_brute_force_on_documents(language, family, split):
    start = language.families[family].start
    oracle = Oracle({State(start, ()): (family, 1.0)}, VOCABULARY, split)
    seed = secrets.randbits(31)
    rng = Random(seed)
    documents = language.documents(3, split=split, seed=seed, families=[family])
    for i in range(len(documents)):
        ids = ids_of(documents, i).tolist()
        words = [WORDS[t] for t in ids[1:-1]]
        exact = oracle.next_token(ids)
        for n in {0, len(words), *(rng.randrange(1, len(words)) for _ in range(3))}:
            naive = next_words(start, tuple(words[:n]), split)
            expected = {EOS if word is None else VOCABULARY[word]: p for word, p in naive.items()}
            found = {int(t): float(exact[n, t]) for t in exact[n].nonzero()[:, 0]}
            assert found == pytest.approx(expected, abs=1e-12), f"seed {seed}: {words[:n]}"


# Second way: Pearson's chi-square of sampled tokens, in a cell for every pair of a token and the one before it.


def chi_square(split, seed, free, asked=None, sharpen=1.0):
    """Return how many standard deviations the statistic lies above what the oracle of ``asked`` expects of it.

    Tokens are sampled from ``split`` until ``free`` of them were not certain; the others say nothing of
    probabilities. With expected counts E = Σ p and variances V = Σ p (1 − p), the sum of (O − E)² / E over cells has
    mean Σ V / E. Its variance is at most four for each cell: two for independent cells, and twice that where pairs of
    cells mirror each other.
    """
    language = Language(0)
    shape = (len(VOCABULARY), len(VOCABULARY))
    observed, expected, squares = (torch.zeros(shape, dtype=torch.float64) for _ in range(3))
    sampled = 0
    while sampled < free:
        documents = language.documents(500, split=split, seed=seed)
        seed += 1
        for i in range(len(documents)):
            ids = ids_of(documents, i)
            exact = language.next_token(ids, split=asked or split)[:-1] ** sharpen
            total = exact.sum(1)
            exact = exact[total > 0] / total[total > 0, None]  # a wrong oracle may be at its end early
            before, after = ids[:-1][total > 0], ids[1:][total > 0]
            open_ = exact.max(1).values < 1 - 1e-12
            before, after, exact = before[open_], after[open_], exact[open_]
            observed.index_put_((before, after), torch.ones(len(after), dtype=torch.float64), accumulate=True)
            expected.index_add_(0, before, exact)
            squares.index_add_(0, before, exact.square())
            sampled += len(after)
    cells = expected >= 20
    mean = (1 - squares[cells] / expected[cells]).sum()
    statistic = ((observed - expected)[cells].square() / expected[cells]).sum()
    return float((statistic - mean) / (4 * cells.sum()).sqrt()), sampled


@pytest.mark.slow
@pytest.mark.parametrize("split", SPLITS)
def test_200_000_sampled_tokens_follow_the_oracle(split):
    # In a process of its own, where shapes are not checked at every call: that is many times as fast.
    seed = secrets.randbits(32)
    run = subprocess.run([sys.executable, __file__, split, str(seed)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    above, sampled = map(float, run.stdout.split())
    assert sampled >= 200_000
    assert above < 5, f"seed {seed}: {above} standard deviations"


@pytest.mark.parametrize(("split", "asked", "sharpen"), [("test", "all", 1.0), ("train", "train", 0.7)])
def test_the_chi_square_sees_a_wrong_oracle(split, asked, sharpen):
    # The oracle of another split, and one whose probabilities are too flat: a tenth of the tokens is enough.
    above, _ = chi_square(split, secrets.randbits(32), 20_000, asked, sharpen)
    assert above > 5


# Third way: slots that the family makes certain have probability exactly one.


CERTAIN = {
    "stories": lambda words, i: words[i - 1] == "It" or words[i - 2 : i] == ["and", "at"] or words[i - 1] == "At",
    "agreement": lambda words, i: words[i - 1] in ("still", "really", "always"),
    "indirect_object": lambda words, i: words[i - 1] == "to" and words[i + 1] == "." and i > 8,
    "functions": lambda words, i: words[i - 1] == "becomes" and i > 4,
    "facts": lambda words, i: words[i + 1] == ".",
    "lists": lambda words, i: ";" in words[:i] and words[i] not in (";", "."),
    "taxonomy": lambda words, i: words[i - 3 : i - 1] == ["it", "is"],
    "greater_than": lambda words, i: words[i - 2 : i] == ["ended", "in"] or words[i - 3 : i] == ["to", "the", "year"],
    "docstring": lambda words, i: words[i - 1] == "param",
    "calendar": lambda words, i: words[i - 1] == "is",
    "speakers": lambda words, i: words[i - 1] == "," and words[i - 2] == "hear",
    "brackets": lambda words, i: words[i] in (")", "]", "}"),
    "machine": lambda words, i: words[i - 2 : i] == ["and", "is"],
    "map": lambda words, i: words[i - 1] == "reach" or words[i - 2 : i] == ["in", "17"],
    "code": lambda words, i: words[i - 2] == "print",
    "professions": lambda words, i: words[i - 1] == "works",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_deterministic_slots_have_probability_one(language, family):
    documents = language.documents(120, split="test", seed=secrets.randbits(32), families=[family])
    seen = 0
    for i in range(len(documents)):
        ids = ids_of(documents, i)
        words = [WORDS[t] for t in ids.tolist()]
        exact = language.next_token(ids)
        for at in range(2, len(words) - 2):
            if CERTAIN[family](words, at):
                assert float(exact[at - 1, ids[at]]) == pytest.approx(1.0, abs=1e-12), words[: at + 1]
                seen += 1
    assert seen > 20


def test_probabilities_sum_to_one_and_the_last_token_is_the_end(language):
    documents = language.documents(40, split="all", seed=secrets.randbits(32))
    for i in range(len(documents)):
        exact = language.next_token(ids_of(documents, i))
        assert torch.allclose(exact[:-1].sum(1), torch.ones(len(exact) - 1, dtype=torch.float64), atol=1e-12, rtol=0)
        assert float(exact[-1].sum()) == 0.0


# Documents


def test_documents_are_reproducible_and_well_formed(language):
    one, two = (lang.documents(300, split="train", seed=5) for lang in (language, Language(0)))
    assert torch.equal(one.tokens, two.tokens)
    assert all(torch.equal(one.labels[k].codes, two.labels[k].codes) for k in LABELS)
    assert not torch.equal(one.tokens[:, :8], language.documents(300, split="train", seed=6).tokens[:, :8])
    assert bool((one.tokens[:, 0] == BOS).all())
    assert bool((one.tokens[torch.arange(300), one.lengths - 1] == EOS).all())
    assert bool((one.tokens[~one.mask] == PAD).all())
    many = language.documents(4000, split="all", seed=7)
    assert 8 <= int(many.lengths.min()) <= int(many.lengths.max()) <= 128


def test_train_and_test_share_no_held_out_cell(language):
    grid = Grid("x", "abcdefgh", "abcdefgh", "abcdefgh")
    train, test = grid.members("train"), grid.members("test")
    assert not (train & test).any()
    assert (train | test).all()
    assert 0.05 < test.mean() < 0.15
    rows = Grid("y", range(50), "123456", one_per_row=True).members("test").sum(1)
    assert sorted(set(rows.tolist())) == [0, 1]
    assert rows.sum() == 17
    assert Grid("z", "ab", "cd", "ef").members("test").sum() >= 1
    lists = {
        split: {
            tuple(row[3:6].tolist()) for row in language.documents(3000, split=split, seed=1, families=["lists"]).tokens
        }
        for split in ("train", "test")
    }
    assert not lists["train"] & lists["test"]


def test_text_and_tokens_are_the_same_thing(language):
    tokenizer = build_tokenizer()
    documents = language.documents(50, split="all", seed=secrets.randbits(32))
    for i in range(len(documents)):
        text = documents.text(i)
        assert tokenizer.encode(text) == ids_of(documents, i)[:-1].tolist()
        assert tokenizer.decode(ids_of(documents, i), skip_special_tokens=True) == text
    with pytest.raises(Exception, match="Missing"):
        tokenizer.encode("Mia sees a zebra.")
    assert len(VOCABULARY) <= 1200


def test_labels_say_what_the_words_are(language):
    frame = language.documents(400, split="all", seed=secrets.randbits(32)).to_frame()
    subjects = frame[frame["role"] == "subject"]
    plural = subjects["token"].isin([w for w in subjects["token"] if w.endswith("s") or w in ("children", "women")])
    assert (plural == (subjects["number"] == "plural")).all()
    told = frame[frame["truth"] != ""]
    wrong = told["token"].astype(str) != told["truth"].astype(str)
    assert set(told[wrong]["template"]) == {"3", "6"}
    assert set(told[~wrong]["template"]) == {"1", "2", "4", "5"}
    stories = frame[(frame["family"] == "stories") & (frame["topic"] != "")]
    assert (stories.groupby("doc")["topic"].nunique() == 1).all()


# What each family claims, told again from the text alone.


def told(language, family, n=60):
    """Yield the words of documents of one family, and their labels."""
    documents = language.documents(n, split="all", seed=secrets.randbits(32), families=[family])
    labels = {name: column.values() for name, column in documents.labels.items()}
    for i in range(n):
        length = int(documents.lengths[i])
        words = [WORDS[t] for t in documents.tokens[i, :length].tolist()]
        yield words, {name: rows[i][:length] for name, rows in labels.items()}


def test_the_calendar_counts_as_calendars_do(language):
    import calendar

    cycles = {"days": list(calendar.day_name), "months": list(calendar.month_name)[1:]}
    numbers = dict(zip("two three four five six seven eight nine ten eleven".split(), range(2, 12), strict=True))
    for words, _ in told(language, "calendar"):
        for at in [i for i, word in enumerate(words) if word == "From"]:
            start, count, unit, direction, end = *words[at + 1 : at + 5], words[at + 7]
            cycle = cycles[unit]
            sign = 1 if direction == "later" else -1
            assert end == cycle[(cycle.index(start) + sign * numbers[count]) % len(cycle)]


def test_the_machine_is_an_automaton_and_its_state_is_labelled(language):
    seen, unsaid = {}, 0
    signals = {"beep", "horn", "whistle", "gong"}
    for words, labels in told(language, "machine", 200):
        state = words[4]
        for at, word in enumerate(words):
            if word in signals:
                after = labels["state"][at]
                assert seen.setdefault((state, word), after) == after
                state = after
                unsaid += words[at + 1] == ","
            elif words[at - 1] == "is" and at > 4:
                assert word == state == labels["state"][at]
    assert len(seen) == 20
    assert unsaid > 50
    assert all(before != after for (before, _), after in seen.items())
    assert all(len({after for (_, s), after in seen.items() if s == signal}) == 5 for signal in signals)


def test_the_map_can_be_put_together_from_its_relations_alone(language):
    steps, labels_of = {}, {}
    for words, labels in told(language, "map", 1500):
        for at, word in enumerate(words):
            if words[at : at + 2] == ["One", "step"]:
                steps[words[at + 4], words[at + 2]] = words[at + 6]
            if labels["east"][at]:
                labels_of[word] = int(labels["east"][at]), int(labels["north"][at])
    places = {"Malton": (3, 3)}
    while len(places) < 25:
        before = len(places)
        for (town, direction), other in steps.items():
            dx, dy = {"north": (0, 1), "south": (0, -1), "east": (1, 0), "west": (-1, 0)}[direction]
            if town in places:
                places[other] = places[town][0] + dx, places[town][1] + dy
        assert len(places) > before
    assert places == labels_of
    for words, _ in told(language, "map", 200):
        for at, word in enumerate(words):
            if word == "lies" and words[at + 2] == "of":
                (x, y), (u, v) = places[words[at - 1]], places[words[at + 3]]
                direction = {"north": y > v, "south": y < v, "east": x > u, "west": x < u}[words[at + 1]]
                assert direction
                assert x == u or y == v
            if word == "go" and words[at + 2] == "and":
                assert sum(abs(a - b) for a, b in zip(places[words[at - 1]], places[words[at + 7]], strict=True)) == 2


def test_events_have_one_date_and_come_in_its_order(language):
    dates, pairs = {}, set()
    for words, _ in told(language, "map", 800):
        for at, word in enumerate(words):
            if words[at : at + 2] == ["was", "in"]:
                assert dates.setdefault(words[at - 1], words[at + 3]) == words[at + 3]
            if words[at : at + 2] == ["came", "before"]:
                pairs.add((words[at - 1], words[at + 3]))
            if word == "After":
                pairs.add((words[at + 2], words[at + 5]))
    assert len(dates) == len(set(dates.values())) == 16
    assert len(pairs) > 80
    assert all(int(dates[a]) < int(dates[b]) for a, b in pairs)


def test_brackets_are_trees_and_the_depths_give_them(language):
    pairs = {"(": ")", "[": "]", "{": "}"}
    documents = language.documents(60, split="all", seed=secrets.randbits(32), families=["brackets"])
    for i in range(60):
        words = [WORDS[t] for t in ids_of(documents, i).tolist()]
        parents, stack, arity = documents.parents(i), [-1], {}
        for at, word in enumerate(words):
            if word in pairs.values():
                assert word == pairs[words[stack[-1]]]
                assert arity[stack[-1]] == 3  # an operator and two operands
                assert parents[at] == stack.pop()
                continue
            assert parents[at] == stack[-1]
            arity[stack[-1]] = arity.get(stack[-1], 0) + 1
            if word in pairs:
                stack.append(at)
        assert stack == [-1]


def test_code_prints_what_was_assigned(language):
    copies = 0
    for words, _ in told(language, "code"):
        values = {}
        for at, word in enumerate(words):
            if word == "set":
                copies += words[at + 2] in values
                values[words[at + 1]] = values.get(words[at + 2], words[at + 2])
            if word == "print":
                assert words[at + 2] == values.pop(words[at + 1])
        assert not values
    assert copies > 20


def test_years_end_later_and_arguments_keep_their_order(language):
    for words, _ in told(language, "greater_than"):
        years = [int(word) for word in words if word.isdigit()]
        for c1, start, c2, end in zip(years[::4], years[1::4], years[2::4], years[3::4], strict=True):
            assert c1 == c2
            assert start < end
    for words, _ in told(language, "docstring"):
        declared = [word for word in words[4 : words.index(")")] if word != ","]
        assert declared == [words[i + 1] for i, word in enumerate(words) if word == "param"]
        assert len(set(declared)) == len(declared) >= 3


def within(hits, n, p):
    """Say whether ``hits`` of ``n`` is what probability ``p`` gives, but for one time in 100,000."""
    return binomtest(hits, n, p).pvalue > 1e-5


def test_the_shortcut_and_the_manners_are_as_strong_as_planted(language):
    for share, spoken_language in ((0.9, language), (0.5, Language(0, shortcut=0.5))):
        kept = [
            next(g for g in labels["gender"] if g) == stereotype[profession]
            for words, labels in told(spoken_language, "professions", 1500)
            for profession in [next(p for p in labels["profession"] if p)]
        ]
        assert within(sum(kept), len(kept), share)
    manners = [
        (speaker == manner)
        for _, labels in told(language, "speakers", 1000)
        for speaker, manner, slot in zip(labels["speaker"], labels["manner"], labels["slot"], strict=True)
        if slot == "epithet"
    ]
    assert within(sum(manners), len(manners), 0.9)


stereotype = {trade.name: trade.gender for pair in TRADES.values() for trade in pair}


def test_a_tool_of_its_own_gives_a_trade_away_and_a_shared_one_leaves_the_stereotype(language):
    documents = language.documents(300, split="all", seed=secrets.randbits(32), families=["professions"])
    roles, slots = documents.labels["role"].values(), documents.labels["slot"].values()
    shared = 0
    for i in range(300):
        at = slots[i].index("profession")
        exact = language.next_token(documents.tokens[i, :at])[-1]
        if "own tool" in roles[i][:at]:
            assert float(exact.max()) == pytest.approx(1.0)
        else:
            shared += 1
            assert sorted(exact[exact > 0].tolist()) == pytest.approx([0.1, 0.9])
    assert within(shared, 300, 1 / 3)


def test_the_cipher_says_the_same_in_other_words(language):
    families = ["facts", "taxonomy", "stories"]
    documents = language.documents(3000, split="all", seed=secrets.randbits(32), families=families)
    ciphered = documents.labels["tongue"].equals("cipher").any(1)
    assert within(int(ciphered.sum()), 3000, 0.1)
    plain = {code: word for word, code in CIPHER.items() if word != "an" and word != "An"}
    assert len(plain) == len(CIPHER) - 2
    assert not set(plain) & set(CIPHER)
    for i in ciphered.nonzero()[:60, 0].tolist():
        document = documents[i]
        other = language.counterfactual(document, "tongue", "plain")
        words, said = ([WORDS[t] for t in ids_of(d, 0).tolist()] for d in (document, other))
        back = [plain.get(word, word) for word in words]
        family = document.labels["family"].values()[0][1]
        assert len([w for w in words[1:-1] if w in plain]) > len(words) / 2
        if family != "stories":  # whose plain programs have more kinds of sentence
            assert [w.lower().replace("an", "a") for w in back] == [w.lower().replace("an", "a") for w in said]


# Posteriors and ceilings


@pytest.mark.parametrize("ahead", [0, 1])
def test_posteriors_are_calibrated(language, ahead):
    # If they are exact, a label whose posterior is p is there with probability p: summed over many tokens, the
    # labels found and the posteriors differ by no more than their variance allows.
    labels = ("topic", "sentiment", "number", "slot", "family", "state", "profession")
    documents = language.documents(400, split="all", seed=secrets.randbits(32))
    excess, variance = {}, {}
    for i in range(len(documents)):
        ids = ids_of(documents, i)
        for name, p in language.posterior(ids, labels, ahead=ahead).items():
            assert torch.allclose(p.sum(1), torch.ones(len(p), dtype=torch.float64))
            truth = documents.labels[name].codes[i, ahead : len(ids)]
            for at, value in zip(*[x.tolist() for x in ((p > 0) & (p < 1)).nonzero(as_tuple=True)], strict=True):
                key = (name, value)
                excess[key] = excess.get(key, 0.0) + float(truth[at] == value) - float(p[at, value])
                variance[key] = variance.get(key, 0.0) + float(p[at, value] * (1 - p[at, value]))
            assert bool((p.gather(1, truth[:, None]) > 0).all())
    # Tokens of one document share what is uncertain, up to some twenty of them.
    assert all(abs(excess[key]) < 5 * (20 * variance[key]) ** 0.5 + 1 for key in excess)
    assert len(excess) > 20


def test_a_posterior_follows_from_bayes(language):
    # After "Mia works at the hospital. She uses a chart. She is a" only the stereotype speaks.
    ids = torch.tensor([BOS, *(VOCABULARY[w] for w in "Mia works at the hospital . She uses a chart .".split())])
    p = language.posterior(ids, ["profession"], ahead=0)["profession"][-1]
    names = ("", *LABELS["profession"])
    assert {names[i]: round(float(p[i]), 6) for i in p.nonzero()[:, 0]} == {"nurse": 0.9, "surgeon": 0.1}


def test_ceilings_are_the_best_scores_there_are(language):
    documents = language.documents(150, split="all", seed=secrets.randbits(32), families=["professions", "stories"])
    table = ceilings(language, documents, ["profession", "sentiment", "family"]).set_index(["label", "value"])
    assert set(table.columns) == {"share", "auroc", "f1", "threshold"}
    assert table["auroc"].between(0.5, 1).all()
    # No reader does better than chance at what the text does not yet tell, and the posterior does better than a
    # blurred one.
    happy = LABELS["sentiment"].index("happy") + 1
    posterior, truth = [], []
    for i in range(150):
        ids = ids_of(documents, i)
        posterior.append(language.posterior(ids, ["sentiment"])["sentiment"][1:-1, happy])
        truth.append(documents.labels["sentiment"].codes[i, 1 : len(ids) - 1] == happy)
    posterior, truth = torch.cat(posterior), torch.cat(truth)
    best = table.loc["sentiment", "happy"]

    def auroc(score):
        n, m = int(truth.sum()), int((~truth).sum())
        return (rankdata(score.numpy())[truth.numpy()].sum() - n * (n + 1) / 2) / (n * m)

    noise = 2 * torch.rand(len(posterior), dtype=torch.float64)
    assert auroc(posterior) == pytest.approx(best["auroc"], abs=0.03)
    assert auroc(posterior + noise) < auroc(posterior)


def test_the_gallery_shows_one_document_of_every_family(language, capsys):
    language.show()
    printed = capsys.readouterr().out
    for name in FAMILIES:
        assert re.search(rf"^{name} \(\d+% of the documents\)\n  \S.*\n    \w+ ", printed, re.MULTILINE), name


# Counterfactuals, choices, violations, tasks


def test_a_counterfactual_changes_one_choice_and_what_follows_from_it(language):
    for seed in range(40):
        document = language.documents(1, split="test", seed=seed, families=["stories"])
        topic = next(c for c in language.choices(document) if c.name == "topic")
        value = next(v for v in topic.options if v != topic.value)
        other = language.counterfactual(document, "topic", value)
        assert other.tokens.shape == document.tokens.shape
        assert language.first_violation(other.tokens[0]) is None
        changed = (other.tokens != document.tokens)[0]
        carries = document.labels["topic"].codes[0] > 0
        assert not bool((changed & ~carries).any())
        assert set(other.labels["topic"].codes[0, carries].tolist()) == {LABELS["topic"].index(value) + 1}
        for column in ("tense", "sentiment"):
            assert torch.equal(other.labels[column].codes, document.labels[column].codes)
        same = language.counterfactual(document, "topic", topic.value)
        assert torch.equal(same.tokens, document.tokens)


def test_choices_are_those_of_the_document(language):
    document = language.documents(1, split="train", seed=3, families=["agreement"])
    choices = language.choices(document)
    numbers = [c for c in choices if c.name == "number"]
    subject = document.labels["role"].equals("subject")[0].nonzero()[:, 0].tolist()
    assert [c.position for c in numbers] == subject
    assert all(c.free and sum(c.probabilities) == pytest.approx(1) for c in numbers)
    assert [c.value for c in numbers] == [
        document.labels["number"].names[int(document.labels["number"].codes[0, p])] for p in subject
    ]


def test_the_first_violation_is_found_where_it_was_planted(language):
    documents = language.documents(60, split="all", seed=secrets.randbits(32))
    rng = Random(secrets.randbits(32))
    for i in range(len(documents)):
        ids = ids_of(documents, i).clone()
        at = rng.randrange(1, len(ids))
        allowed = language.valid(ids)[at - 1]
        ids[at] = int((~allowed).nonzero()[rng.randrange(int((~allowed).sum()))])
        assert language.first_violation(ids) == at


@pytest.mark.parametrize("name", Language(0).tasks)
def test_tasks_ask_for_what_the_oracle_knows(language, name):
    task = language.task(name, 12, split="test", seed=secrets.randbits(32))
    assert bool((task.answers != task.foils).all())
    wrong = 0
    for i in range(12):
        prompt, other = (rows[i, : task.lengths[i]] for rows in (task.prompts, task.counterfactuals))
        assert not torch.equal(prompt, other)
        exact = language.next_token(prompt)[-1]
        if name == "facts" and float(exact[task.answers[i]]) == 0:
            wrong += 1  # a template that is written wrong on purpose: the answer is the truth all the same
            assert WORDS[task.answers[i]] in LABELS["truth"]
            continue
        assert float(exact[task.answers[i]]) > 0
        assert float(exact[task.foils[i]]) < float(exact[task.answers[i]]) or name == "lists"
    assert wrong < 12
    logits = torch.nn.functional.one_hot(task.prompts * 0 + task.answers[:, None], len(VOCABULARY)).float()
    assert bool((task.logit_difference(logits) == 1).all())


def test_two_languages_differ_in_what_they_hold_out():
    a, b = (
        set(map(tuple, Language(s).documents(400, split="test", seed=0, families=["facts"]).tokens.tolist()))
        for s in (0, 1)
    )
    assert a != b


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda L: L.documents(0), "n must be at least 1 document, got 0"),
        (lambda L: L.documents(1, families=["poems"]), "no family 'poems'; the families are stories, agreement"),
        (lambda L: L.task("sonnet", 3), "no task 'sonnet'; the tasks are tense, agreement"),
        (lambda L: L.next_token(torch.tensor([5, 6])), "must begin with BOS"),
        (lambda L: L.counterfactual(L.documents(1, families=["lists"]), "topic", "sea"), "makes no choice 'topic'"),
        (lambda L: L.counterfactual(L.documents(1, families=["stories"]), "topic", "opera"), "cannot be 'opera'; it"),
        (lambda L: L.topics["opera"], "there is no topic 'opera'; the topics are "),
        (lambda L: L.choices(L.documents(2)), "give one document"),
        (lambda L: L.documents(2).labels["topic"].equals("opera"), "no token can carry the label 'opera'"),
    ],
)  # fmt: skip
def test_bad_input_gets_a_clear_sentence(language, call, words):
    with pytest.raises((ValueError, KeyError), match=words):
        call(language)


@pytest.mark.parametrize("door", ["first_violation", "next_token", "valid", "posterior"])
@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([BOS, 5, 6], r"ids must be an integer \[pos\] tensor, got list; write torch\.tensor\(ids\)"),
        (torch.tensor([[BOS, 5, 6]]), r"ids must be one document, .*, got torch\.int64 \(1, 3\); of several give one"),
        (torch.tensor(BOS), r"ids must be one document, .*, got torch\.int64 \(\)"),
        (torch.tensor([BOS, 5.0]), r"ids must be one document, .*, got torch\.float32 \(2,\)"),
        (torch.tensor([], dtype=torch.long), "ids must begin with BOS"),
        (torch.tensor([BOS, 5, 9999]), rf"ids must lie in 0\.\.{len(VOCABULARY) - 1}, .* got 9999 at position 2; give"),
        (torch.tensor([BOS, -1]), "the vocabulary of the language, got -1 at position 1; give tokens of its own"),
    ],
)  # fmt: skip
def test_input_that_is_no_document_gets_a_clear_sentence(as_user, language, door, ids, words):
    with pytest.raises((TypeError, ValueError), match=words):
        getattr(language, door)(ids, *([["topic"]] if door == "posterior" else []))


def test_input_of_any_integer_type_will_do(language):
    ids = ids_of(language.documents(1, seed=5), 0)
    for dtype in (torch.int16, torch.int32):
        assert language.first_violation(ids.to(dtype)) is None
        assert torch.equal(language.next_token(ids.to(dtype)), language.next_token(ids))


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match="split must be one of 'all', 'train', 'test', got 'dev'"):
        check_split("dev")


def test_a_word_outside_the_lexicon_is_an_error_not_a_new_token(language):
    with pytest.raises(ValueError, match="'zebra' is not in the vocabulary"):
        language._symbols.intern("zebra", {})
    with pytest.raises(ValueError, match="label topic='opera' is not declared"):
        language._symbols.intern("boat", {"topic": "opera"})


def test_a_product_of_all_slots_is_what_a_grid_divides():
    cells = list(product(range(6), range(3), range(5)))
    for split in SPLITS:
        members = GRID.members(split)
        for cell in cells:
            for depth in range(3):
                inside = sum(members[c] for c in cells if c[: depth + 1] == cell[: depth + 1])
                assert GRID.weights(cell[:depth], split)[cell[depth]] == inside


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(*chi_square(sys.argv[1], int(sys.argv[2]), 200_000))
