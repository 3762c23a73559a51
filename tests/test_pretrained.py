"""What is shipped is as good as its card says, on documents chosen now."""

import json
import secrets
from functools import cache
from itertools import pairwise
from math import sqrt
from pathlib import Path

import pytest
import torch

import workbench
from workbench.activations import ActivationStore
from workbench.dictionaries import fidelity, load_dictionary
from workbench.language import Language, build_tokenizer
from workbench.language.exam import examine, planted
from workbench.models import load_model

SHIPPED = Path(workbench.__file__).parent / "pretrained"
SEED = secrets.randbits(32)


@pytest.fixture(scope="module")
def model():
    return load_model("tiny")


@pytest.fixture(scope="module")
def exam(model):
    documents = Language(0).documents(1_500, split="test", seed=SEED)
    return examine(lambda ids: model(ids), Language(0), documents)


@pytest.fixture(scope="module")
def card():
    return json.loads((SHIPPED / "tiny" / "card.json").read_text())["exam"]


def test_the_model_is_close_to_the_language(exam):
    assert exam.kl <= 0.05, f"documents of seed {SEED}"
    assert exam.grammatical_mass >= 0.99, f"documents of seed {SEED}"


# Slot → the least share of right answers where the language leaves one only. Facts that are written wrong on purpose
# are a slot of their own.
REQUIRED = {
    "agreement: agreement": 0.99,
    "stories: agreement": 0.99,
    "docstring: argument": 0.99,
    "lists: repeat": 0.99,
    "taxonomy: kind": 0.99,
    "facts: answer": 0.99,
    "functions: output": 0.99,
    "indirect_object: receiver": 0.99,
    "code: value": 0.98,
    "calendar: day": 0.98,
    "calendar: month": 0.98,
    "brackets: close": 0.98,
    "machine: state": 0.98,
    "map: town": 0.98,
    "map: date": 0.98,
}


@cache
def slots(family):
    """Slots of one family, on so many documents that a share means something."""
    documents = Language(0).documents(250, split="test", seed=SEED, families=[family])
    shipped = load_model("tiny")
    return examine(lambda ids: shipped(ids), Language(0), documents).slots


@pytest.mark.parametrize("slot", REQUIRED)
def test_certain_slots_are_certain(slot):
    family, name = slot.split(": ")
    table = slots(family)
    (row,) = table[table["certain"] & (table["slot"] == name)].to_dict("records")
    assert row["count"] >= 100
    assert row["accuracy"] >= REQUIRED[slot], f"documents of seed {SEED}: {row}"


def test_years_end_later_than_they_began():
    years = slots("greater_than")
    assert years["count"].sum() >= 500
    assert (years["mass"] * years["count"]).sum() / years["count"].sum() >= 0.98, f"documents of seed {SEED}"


def test_what_is_planted_shows(model, card):
    table = planted(lambda ids: model(ids), Language(0), seed=SEED).set_index("what")
    assert (table["count"] >= 50).all()
    assert ((table["model"] - table["exact"]).abs() <= 0.1).all(), f"documents of seed {SEED}:\n{table}"
    for what, told in card["planted"].items():
        assert table.loc[what, "model"] == pytest.approx(told["model"], abs=0.05), f"documents of seed {SEED}: {what}"


def test_the_card_is_true(exam, card):
    spread = 4 * sqrt(exam.kl_error**2 + card["kl_standard_error"] ** 2)
    assert abs(exam.kl - card["kl_nats_per_token"]) <= spread, f"documents of seed {SEED}"
    assert abs(exam.grammatical_mass - card["grammatical_mass"]) <= 0.005, f"documents of seed {SEED}"
    for row in exam.families.itertuples():
        told = card["families"][row.family]
        assert abs(row.kl - told["kl"]) <= 0.02 + 0.4 * told["kl"], f"documents of seed {SEED}: {row}"
    for row in exam.slots.itertuples():
        name = f"{row.family}: {row.slot}" + ("" if row.certain else ", not certain")
        told = card["slots"].get(name)
        if told is None or min(told["count"], row.count) < 20:
            continue
        p = (told["accuracy"] * told["count"] + row.accuracy * row.count) / (told["count"] + row.count)
        # Several slots of one document are right or wrong together, hence half as many.
        error = sqrt(p * (1 - p) * (2 / told["count"] + 2 / row.count))
        assert abs(row.accuracy - told["accuracy"]) <= 4 * error + 1e-3, f"documents of seed {SEED}: {row}"


def test_the_tokenizer_shipped_is_the_language_s(model):
    documents = Language(0).documents(30, split="all", seed=SEED)
    for i in range(len(documents)):
        text = documents.text(i)
        assert model.tokenizer.encode(text) == build_tokenizer().encode(text)
        assert model.tokenizer.encode(text) == documents.tokens[i, : documents.lengths[i] - 1].tolist()


@pytest.mark.parametrize("name", sorted(folder.name for folder in SHIPPED.glob("tiny-*")))
def test_the_other_seeds_know_the_same_language(model, name):
    other, told = load_model(name), json.loads((SHIPPED / name / "card.json").read_text())
    assert told["recipe"]["language"] == 0
    assert told["recipe"]["seed"] != 0
    assert not torch.allclose(other.W_E, model.W_E, atol=0.1)
    found = examine(lambda ids: other(ids), Language(0), Language(0).documents(400, split="test", seed=SEED))
    assert found.kl <= 0.05, f"documents of seed {SEED}"
    assert found.grammatical_mass >= 0.99, f"documents of seed {SEED}"
    spread = 4 * sqrt(found.kl_error**2 + told["exam"]["kl_standard_error"] ** 2)
    assert abs(found.kl - told["exam"]["kl_nats_per_token"]) <= spread, f"documents of seed {SEED}"


def test_the_checkpoints_tell_how_the_model_learnt(exam):
    steps = sorted(int(file.stem) for file in (SHIPPED / "tiny" / "checkpoints").iterdir())
    assert len(steps) >= 8
    assert steps[:4] == [0, 50, 100, 200]
    documents = Language(0).documents(60, split="test", seed=SEED)
    models = [load_model(f"tiny@{n}") for n in steps]
    found = [examine(lambda ids, m=m: m(ids), Language(0), documents).kl for m in models]
    assert all(before > after for before, after in pairwise([*found, exam.kl])), f"documents of seed {SEED}: {found}"
    assert found[0] > 5


def test_what_is_shipped_keeps_to_its_bytes():
    def size(folder):
        return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())

    assert sum(p.stat().st_size for p in (SHIPPED / "tiny").iterdir() if p.is_file()) <= 3 * 2**20
    assert sum(size(folder) for folder in SHIPPED.glob("tiny*")) <= 30e6
    assert size(SHIPPED / "dictionary") <= 30e6


def test_the_dictionary_is_as_its_card_says(model):
    dictionary = load_dictionary("tiny")
    dictionary.check(model)
    (site,) = dictionary.sites_in
    store = ActivationStore.collect(model, Language(0).documents(4_000, split="test", seed=SEED), [site])
    found = fidelity(dictionary, store.rows(slice(None)).acts)
    told = dictionary.provenance["held_out"]
    assert found.fvu <= 0.05, f"documents of seed {SEED}"
    assert abs(found.fvu - told["fvu"]) <= 0.15 * found.fvu
    assert found.l0 <= 16
    assert found.dead <= 0.02
    assert abs(found.dead - told["dead"]) <= 0.01
    assert dictionary.n_features == 1024
    assert torch.allclose(dictionary.W_dec.norm(dim=1), torch.ones(1024), atol=1e-2)
