"""The feature dashboard and the dictionary browser: what they show is what the features say."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import corpus, made_features
from test_views import click, tell

from workbench.activations import ActivationStore
from workbench.dictionaries import TopK
from workbench.features import describe, load_features
from workbench.models import Site
from workbench.views.base import legible
from workbench.views.browser import BrowserView, dictionary_browser
from workbench.views.feature import FeatureView, card, feature_dashboard, often

SEED = int(torch.randint(1 << 30, ()))


@pytest.fixture(scope="module")
def described(loaded):
    model, site = loaded["neox"], Site(1)
    store = ActivationStore.collect(model, corpus(60, SEED), [site])
    torch.manual_seed(SEED)
    dictionary = TopK(32, 48, k=4, sites_in=(site,), sites_out=(site,))
    return describe(dictionary, store, model)


def facts(view):
    return {fact["label"]: (fact["value"], fact["note"]) for fact in view.card["facts"]}


def listings(view):
    return {one["title"]: one for one in view.card["listings"]}


# The dashboard.


def test_a_dashboard_shows_what_the_feature_says(described):
    number = int(described.table["density"].argmax())
    view = feature_dashboard(described, number).view
    feature = described[number]
    assert view.card["title"] == f"Feature {number} of 48"
    assert facts(view)["Active on"] == (f"{feature.count:,}", f"of {described.rows:,} tokens")
    best = feature.matches[0]
    assert facts(view)["Best label"][0] == best.name
    assert facts(view)["Best label"][1].startswith(f"with F1 {best.f1:.2f},")
    assert facts(view)["Loss without it"][0] == f"{feature.loss_effect:+.2g} nats".replace("-", "−")
    top, *others = view.card["sections"]
    (shown,) = top["groups"]
    assert [row["tokens"] for row in shown["rows"]] == [one.words for one in feature.top]
    assert max(shown["rows"][0]["values"]) == pytest.approx(feature.max, rel=2e-3)  # half precision
    for by, section in zip(("quantile", "interval"), others, strict=True):
        assert section["name"] == f"By {by}"
        for group, texts in zip(feature.groups(by), section["groups"], strict=True):
            assert [row["tokens"] for row in texts["rows"]] == [one.words for one in group.examples]
            assert texts["title"].startswith(group.title)
            assert f"about {round(group.share * feature.count):,} tokens" in texts["title"]
    activations, positions = view.card["bars"]
    assert np.argmax(activations["heights"]) == feature.histogram.argmax()
    assert len(positions["heights"]) == len(feature.places)
    shown = listings(view)
    assert [row[0] for row in shown["Tokens it is active on"]["rows"]] == feature.tokens["token"].tolist()
    half = len(feature.logits) // 2
    assert [row[0] for row in shown["Raises directly"]["rows"]] == feature.logits["token"].tolist()[:half]
    assert [row[0] for row in shown["Lowers directly"]["rows"]] == feature.logits["token"].tolist()[: half - 1 : -1]
    for title, table in (
        ("In its company", feature.company),
        ("Activations alike", feature.alike),
        ("Of like direction", feature.near),
    ):
        assert shown[title]["features"] == table["feature"].tolist()
        assert [int(row[0]) for row in shown[title]["rows"]] == shown[title]["features"]


def test_a_set_from_a_file_and_without_a_model_shows_what_it_holds(described, tmp_path):
    described.save(tmp_path)
    view = feature_dashboard(load_features(tmp_path), 5).view
    assert view.card == feature_dashboard(described, 5).view.card
    bare = made_features()
    for name in ("raised", "raised_by", "lowered", "lowered_by", "loss_effect"):
        bare.columns.pop(name)
    view = feature_dashboard(bare, 3).view
    assert "Loss without it" not in facts(view)
    assert "Raises directly" not in listings(view)


@pytest.mark.parametrize(
    ("density", "told"),
    [(0.0139, "about once in 72"), (1e-5, "about once in 100,000"), (0.25, "about once in 4"), (0.7, "about 7 in 10")],
)
def test_density_is_told_by_a_count(density, told):
    assert often(density) == told


def test_a_dead_and_a_dense_feature_say_so():
    features = made_features()
    dead, dense = card(features[0]), card(features[1])
    assert (dead.flags, dense.flags) == (["dead"], ["dense"])
    assert "never active on 100,000 tokens" in feature_dashboard(features, 0).describe()
    assert dense.facts[0].value == "30 %"
    assert dense.facts[0].note == "of tokens: about once in 3"


def test_one_feature_travels_at_a_time_and_a_neighbour_opens():
    features = made_features(200)
    dashboard = feature_dashboard(features, 7)
    assert len(json.dumps(dashboard.view.card)) < 100_000
    neighbour = listings(dashboard.view)["In its company"]["features"][0]
    tell(dashboard.view, number=neighbour)
    assert dashboard.view.card["title"] == f"Feature {neighbour} of 200"
    assert dashboard.number.value == neighbour
    tell(dashboard.number, value=199)
    assert dashboard.view.card["number"] == 199
    assert dashboard.next.disabled
    click(dashboard.previous)
    assert (dashboard.view.number, dashboard.next.disabled) == (198, False)
    click(dashboard.next)
    assert dashboard.view.number == 199


@pytest.mark.usefixtures("as_user")
def test_a_dashboard_says_what_is_wrong():
    features = made_features()
    for number in (24, -25, 1.5):
        with pytest.raises(IndexError, match=re.escape(f"Features are numbered 0 to 23, got {number}")):
            feature_dashboard(features, number)
    assert feature_dashboard(features, -1).view.number == 23
    view = FeatureView(features, 3)
    tell(view, number=24)
    assert view.error == "Features are numbered 0 to 23, got 24."
    assert view.number == 3
    tell(view, section=3)
    assert view.error == "The examples are numbered 0 to 2, got 3."


# Foreign text.


def test_what_controls_a_line_becomes_a_sign():
    assert legible(" a\n\x07\x85\u202eb\u200d\x7f") == " a⏎␇⟨0085⟩⟨202E⟩b\u200d␡"
    assert legible("👩\u200d🔬 مرحبا") == "👩\u200d🔬 مرحبا"
    assert legible("x" * 200_000) == "x" * 63 + "…"


def test_words_of_any_kind_are_shown_and_written(tmp_path):
    words = ["a\u2028b\nc", "\u202eright", "x" * 200_000, "\x00", "👩\u200d🔬", "", " "]
    browser = dictionary_browser(made_features(words=words * 6))
    size = browser.export_html(tmp_path / "hostile.html").stat().st_size
    assert size < 300_000
    assert all(len(lines.split("\n")) == 24 for lines in browser.view.texts.values())
    assert not re.search("[\x00\u202e\u2028]", browser.static_html())


# The browser.


def table_of(n):
    generator = np.random.default_rng(SEED)
    table = pd.DataFrame({"density": generator.random(n), "max": generator.random(n)})
    table["token"] = [f" word{i % 7}" for i in range(n)]
    table["label"] = [f"topic={'abc'[i % 3]}" for i in range(n)]
    table["f1"] = generator.random(n).round(2)
    table["dead"], table["dense"] = table.index == 2, table.index == 3
    return table


def test_numbers_travel_as_one_binary_buffer():
    table = table_of(50_000)
    view = BrowserView(table)
    assert view.names == ["density", "max", "f1"]
    sent = np.frombuffer(view.numbers, "<f4").reshape(3, -1)
    assert np.array_equal(sent, table[view.names].to_numpy("f4").T)
    assert len(view.numbers) == 600_000
    assert sum(map(len, view.texts.values())) < 2_000_000
    assert len(view.static_html()) < 10_000


def test_it_opens_on_the_best_feature_and_by_the_best_column():
    table = table_of(100)
    assert BrowserView(table).chosen == table["f1"].argmax()
    without = BrowserView(table.drop(columns=["f1", "label"]))
    assert (without.up, without.order, without.chosen) == ("max", "max", table["max"].argmax())


def test_a_search_is_for_all_words_in_number_and_text():
    view = BrowserView(table_of(100))
    numbers = np.arange(100)
    for query, wanted in {
        "topic=a WORD3": numbers[(numbers % 3 == 0) & (numbers % 7 == 3)],
        "#99": [99],
        "dead": [2],
        "dense topic=a": [3],
        "[": [],
        "": numbers,
    }.items():
        tell(view, query=query)
        assert sorted(view.matching()["feature"]) == list(wanted)
    tell(view, query="word3", order="token", falling=False)
    assert view.matching()["feature"].tolist() == list(range(3, 100, 7))
    assert view.snapshot()["found"] == 14
    assert "14 answer to 'word3'" in repr(view)


def test_choosing_opens_the_dashboard_and_the_dashboard_moves_the_choice():
    browser = dictionary_browser(made_features(60))
    tell(browser.view, chosen=17)
    assert browser.dashboard.view.card["title"] == "Feature 17 of 60"
    click(browser.dashboard.next)
    assert browser.view.chosen == 18
    assert "feature 18 is open" in repr(browser)
    assert len(browser.views()) == 2


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"chosen": 24}, "Features are numbered 0 to 23, got 24."),
        ({"up": "label"}, "up must be one of density, mean, max"),
        ({"order": "size"}, "order must be one of feature, density"),
    ],
)
def test_the_browser_says_what_is_wrong(told, message):
    browser = dictionary_browser(made_features())
    before = browser.snapshot()
    tell(browser.view, **told)
    assert browser.error.startswith(message)
    assert browser.snapshot() == before
