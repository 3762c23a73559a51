"""The language: its oracle is exact (three independent ways), its documents reproducible, its truth consistent."""

import secrets
import subprocess
import sys
from itertools import product
from random import Random

import pytest
import torch
from scipy.stats import chi2

from workbench.language import Language, build_tokenizer
from workbench.language.documents import WORDS
from workbench.language.engine import State, Tracer
from workbench.language.labels import FAMILIES, LABELS
from workbench.language.lexicon import BOS, COUNTRIES, EOS, PAD, VOCABULARY
from workbench.language.oracle import Oracle
from workbench.language.splits import SPLITS, Grid, check_split


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


def every_execution(start, args=(), limit=None):
    """Yield (probability, words, cells) of every execution of a whole program."""
    todo = [()]
    while todo:
        given = todo.pop()
        tracer = Exhaustive(given)
        try:
            following = (start, args)
            steps = 0
            while following is not None and steps != limit:
                following = following[0](tracer, *following[1])
                steps += 1
        except StopIteration:
            todo.extend((*given, i) for i in range(tracer.more))
            continue
        cells = {}
        for held, index in tracer.chosen:
            if held is not None:
                cells.setdefault(held, []).append(index)
        yield tracer.probability, tuple(tracer.words), cells


def conditional(executions, split, prefix):
    """Return P(next word | prefix) by counting executions; the split is a rejection."""
    found = {}
    for probability, words, cells in executions:
        kept = all(grid.members(split)[tuple(cell)] for grid, cell in cells.items() if len(cell) == len(grid.slots))
        if kept and words[: len(prefix)] == prefix:
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
    oracle = Oracle({State(program, ()): 1.0}, VOCABULARY, split)
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


@pytest.mark.parametrize("family", ["facts", "taxonomy"])
@pytest.mark.parametrize("split", SPLITS)
def test_the_oracle_equals_brute_force_on_first_statements(language, family, split):
    start = language.families[family].start
    executions = list(every_execution(start, limit=1))
    rng = Random(secrets.randbits(32))
    oracle = Oracle({State(start, ()): 1.0}, VOCABULARY, split)
    documents = language.documents(6, split=split, seed=rng.randrange(2**31), families=[family])
    for i in range(len(documents)):
        words = [WORDS[t] for t in ids_of(documents, i)[1:-1].tolist()]
        first = tuple(words[: words.index(".")])  # what may follow the mark depends on later steps
        for n in range(len(first) + 1):
            expected = conditional(executions, split, first[:n])
            exact = oracle.next_token([BOS, *(VOCABULARY[w] for w in first[:n])])[-1]
            assert {WORDS[t]: pytest.approx(float(exact[t]), abs=1e-12) for t in exact.nonzero()[:, 0]} == expected


# Second way: chi-square of sampled tokens. If the oracle is exact, the probability integral transform of the
# sampled tokens is uniform, whatever the context.


def chi_square(split, seed):
    """Return the statistic over 100 bins, and how many tokens were sampled."""
    language = Language(0)
    generator = torch.Generator().manual_seed(seed)
    documents = language.documents(8_500, split=split, seed=seed)
    values = []
    for i in range(len(documents)):
        ids = ids_of(documents, i)
        exact = language.next_token(ids, split=split)[:-1]
        chosen = exact.gather(1, ids[1:, None])[:, 0]
        below = exact.cumsum(1).gather(1, ids[1:, None])[:, 0] - chosen
        free = chosen < 1 - 1e-12  # a certain token says nothing about probabilities: it is tested below
        values.append((below + torch.rand(len(chosen), generator=generator, dtype=torch.float64) * chosen)[free])
        assert bool((chosen > 0).all())
    sample = torch.cat(values)
    counts = torch.histc(sample, 100, 0.0, 1.0)
    return float(((counts - len(sample) / 100) ** 2 / (len(sample) / 100)).sum()), int(documents.lengths.sum())


@pytest.mark.slow
@pytest.mark.parametrize("split", SPLITS)
def test_200_000_sampled_tokens_follow_the_oracle(split):
    # In a process of its own, where shapes are not checked at every call: that is many times as fast.
    seed = secrets.randbits(32)
    run = subprocess.run([sys.executable, __file__, split, str(seed)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    statistic, tokens = run.stdout.split()
    assert int(tokens) >= 200_000
    assert float(statistic) < chi2.ppf(1 - 1e-6, 99), f"seed {seed}: {statistic} at 99 degrees of freedom"


def test_the_chi_square_sees_a_wrong_oracle(language):
    # The same test must fail when the oracle of another split is asked: its probabilities are a little off.
    documents = language.documents(1_500, split="test", seed=secrets.randbits(32), families=["facts", "taxonomy"])
    impossible = 0
    for i in range(len(documents)):
        ids = ids_of(documents, i)
        exact = language.next_token(ids, split="train")[:-1]
        impossible += int((exact.gather(1, ids[1:, None]) == 0).any())
    assert impossible == len(documents)  # every held-out fact is impossible in the training text


# Third way: slots that the family makes certain have probability exactly one.


CERTAIN = {
    "stories": lambda words, i: words[i - 1] in ("He", "She", "They") and words[i] in ("is", "was", "are", "were"),
    "agreement": lambda words, i: words[i - 1] in ("still", "really", "always"),
    "indirect_object": lambda words, i: words[i - 1] == "to" and words[i + 1] == "." and i > 8,
    "functions": lambda words, i: words[i - 1] == "becomes" and i > 4,
    "facts": lambda words, i: words[i + 1] == ".",
    "lists": lambda words, i: ";" in words[:i] and words[i] not in (";", "."),
    "taxonomy": lambda words, i: words[i - 2] == "it" and words[i - 1] in ("a", "an"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_deterministic_slots_have_probability_one(language, family):
    documents = language.documents(60, split="test", seed=secrets.randbits(32), families=[family])
    seen = 0
    for i in range(len(documents)):
        ids = ids_of(documents, i)
        words = [WORDS[t] for t in ids.tolist()]
        exact = language.next_token(ids)
        for at in range(2, len(words) - 2):
            if CERTAIN[family](words, at):
                assert float(exact[at - 1, ids[at]]) == pytest.approx(1.0, abs=1e-12), words[: at + 1]
                seen += 1
    assert seen > 20 or family in ("stories", "taxonomy")


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
    rows = Grid("y", range(50), "123456", one_per_row=True)
    assert (rows.members("test").sum(1) == 1).all()
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
            assert WORDS[task.answers[i]] in {v for facts in COUNTRIES.values() for v in facts.values()}
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
    print(*chi_square(sys.argv[1], int(sys.argv[2])))
