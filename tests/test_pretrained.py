"""What is shipped is as good as its card says, on documents chosen now."""

import json
import secrets
from math import sqrt
from pathlib import Path

import pytest
import torch

import workbench
from workbench.activations import ActivationStore
from workbench.dictionaries import fidelity, load_dictionary
from workbench.language import Language, build_tokenizer
from workbench.language.exam import examine
from workbench.models import load_model

SHIPPED = Path(workbench.__file__).parent / "pretrained"
SEED = secrets.randbits(32)


@pytest.fixture(scope="module")
def model():
    return load_model("tiny")


@pytest.fixture(scope="module")
def exam(model):
    documents = Language(0).documents(1_200, split="test", seed=SEED)
    return examine(lambda ids: model(ids), Language(0), documents)


@pytest.fixture(scope="module")
def card():
    return json.loads((SHIPPED / "tiny" / "card.json").read_text())["exam"]


def test_the_model_is_close_to_the_language(exam):
    assert exam.kl <= 0.05, f"documents of seed {SEED}"


def test_certain_slots_are_certain(exam):
    sound = exam.slots[exam.slots["slot"] != "answer, written wrong"]
    assert {"agreement", "indirect_object", "functions", "facts", "lists", "taxonomy"} <= set(sound["family"])
    right = (sound["accuracy"] * sound["count"]).sum() / sound["count"].sum()
    assert right >= 0.99, f"documents of seed {SEED}:\n{sound}"


def test_the_card_is_true(exam, card):
    spread = 4 * sqrt(exam.kl_error**2 + card["kl_standard_error"] ** 2)
    assert abs(exam.kl - card["kl_nats_per_token"]) <= spread, f"documents of seed {SEED}"
    for row in exam.slots.itertuples():
        told = card["certain_slots"][f"{row.family}: {row.slot}"]
        p = (told["accuracy"] * told["count"] + row.accuracy * row.count) / (told["count"] + row.count)
        error = sqrt(p * (1 - p) * (1 / told["count"] + 1 / row.count))
        assert abs(row.accuracy - told["accuracy"]) <= 4 * error + 1e-4, row


def test_the_tokenizer_shipped_is_the_language_s(model):
    documents = Language(0).documents(30, split="all", seed=SEED)
    for i in range(len(documents)):
        text = documents.text(i)
        assert model.tokenizer.encode(text) == build_tokenizer().encode(text)
        assert model.tokenizer.encode(text) == documents.tokens[i, : documents.lengths[i] - 1].tolist()


def test_the_model_is_small():
    assert sum(p.stat().st_size for p in (SHIPPED / "tiny").iterdir()) <= 3 * 2**20


def test_the_dictionary_is_as_its_card_says(model):
    dictionary = load_dictionary("tiny")
    (site,) = dictionary.sites_in
    store = ActivationStore.collect(model, Language(0).documents(4_000, split="test", seed=SEED), [site])
    found = fidelity(dictionary, store.rows(slice(None)).acts)
    assert found.fvu <= 0.05, f"documents of seed {SEED}"
    assert abs(found.fvu - dictionary.provenance["held_out"]["fvu"]) <= 0.15 * found.fvu
    assert found.l0 <= 16
    assert found.dead <= 0.02
    assert dictionary.n_features == 1024
    assert torch.allclose(dictionary.W_dec.norm(dim=1), torch.ones(1024), atol=1e-2)
