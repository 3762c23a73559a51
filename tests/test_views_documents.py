"""The browser of documents: what it shows is what the language says."""

import math

import pytest
import torch
from test_views import click, tell

from workbench.language import Language
from workbench.views.documents import BEYOND, EVERY, EXACT, MODEL, document_browser
from workbench.views.jobs import WORKER, JobState


class Uniform(torch.nn.Module):
    """A model that expects every token alike."""

    def __init__(self, size):
        super().__init__()
        self.size = torch.nn.Parameter(torch.zeros(size))

    def forward(self, tokens):
        return self.size.expand(*tokens.shape, -1)


@pytest.fixture(scope="module")
def language():
    return Language(0)


def settle():
    assert WORKER.submit(lambda job: None, JobState()).join(20.0)


def test_it_opens_on_one_document_of_each_family(language):
    browser = document_browser(language, seed=3)
    assert [row["title"] for row in browser.tokens.rows] == list(language.families)
    for row in browser.tokens.rows:
        (document,) = [language.documents(1, split="test", seed=3, families=[row["title"]])]
        words = [list(language.vocabulary)[t] for t in document.tokens[0, 1 : document.lengths[0]].tolist()]
        assert row["tokens"] == words
    assert "surprise, exact" in browser.tokens.label


def test_surprise_is_that_of_the_oracle_and_of_the_model(language):
    model = Uniform(len(language.vocabulary))
    browser = document_browser(language, model, family="lists", n=2, seed=5)
    documents = language.documents(2, split="test", seed=5, families=["lists"])
    ids = documents.tokens[1, : documents.lengths[1]]
    exact = -language.next_token(ids)[:-1].gather(1, ids[1:, None])[:, 0].log()
    assert browser.tokens.rows[1]["values"] == pytest.approx(exact.tolist())
    tell(browser.colour, index=browser.colour.options.index(MODEL))
    assert browser.tokens.rows[1]["values"] == pytest.approx([math.log(len(language.vocabulary))] * len(exact))
    tell(browser.colour, index=browser.colour.options.index(BEYOND))
    beyond = math.log(len(language.vocabulary)) - exact
    assert browser.tokens.rows[1]["values"] == pytest.approx(beyond.tolist())


def test_a_label_colours_the_tokens_that_carry_it_and_another_family_offers_its_own(language):
    browser = document_browser(language, family="machine", seed=1)
    assert "state: idle" in browser.colour.options
    assert not any(option.startswith("topic") for option in browser.colour.options)
    tell(browser.colour, index=browser.colour.options.index("slot: state"))
    labelled = [
        (word, row["tokens"][at - 1])
        for row in browser.tokens.rows
        for at, (word, value) in enumerate(zip(row["tokens"], row["values"], strict=True))
        if value
    ]
    assert labelled
    assert all(before == "is" for _, before in labelled)
    tell(browser.family, index=browser.family.options.index("stories"))
    settle()
    assert any(option.startswith("topic") for option in browser.colour.options)
    assert browser.colour.value == EXACT  # stories have no such slot
    first = browser.tokens.rows
    click(browser.more)
    settle()
    assert browser.tokens.rows != first
    assert browser.snapshot()["seed"] == 2
    assert browser.describe().startswith("stories, seed 2: 4 rows")


def test_what_cannot_be_shown_is_said(language):
    with pytest.raises(ValueError, match="there is no family 'poems'; the families are stories"):
        document_browser(language, family="poems")
    with pytest.raises(ValueError, match="n must be at least 1 document, got 0"):
        document_browser(language, n=0)
    assert EVERY not in language.families
