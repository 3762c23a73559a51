"""The feature dashboard and the dictionary browser in chromium: by key, exported, under foreign text, in the lab."""

import json
import random
import re

import numpy as np
import pandas as pd
import torch
from conftest import made_features
from test_views import FOREIGN

from e2e.test_modules import LEAST_CONTRAST, mount
from workbench.views.browser import BrowserView, dictionary_browser
from workbench.views.feature import FeatureView

SEED = random.randrange(1 << 30)


def sent(page, name):
    return page.evaluate(f"() => sent.at(-1).{name}")


def readout(page):
    return page.locator(".wb-plot + .wb-readout").inner_text()


# The dashboard.


def test_examples_are_chosen_by_key_and_say_how_they_were_drawn(watched):
    page = mount(watched, FeatureView(made_features(), 3))
    page.get_by_role("radio", name="Strongest").focus()
    assert page.get_by_role("region", name="Examples").get_by_role("grid").count() == 1
    page.keyboard.press("ArrowRight")
    assert sent(page, "section") == 1
    headings = [heading.inner_text() for heading in page.get_by_role("heading", level=4).all()]
    assert len(headings) == 5
    assert re.fullmatch(r"80 to 100 % of its activations · .* to .* · about [\d,]+ tokens, 20 %", headings[0])
    page.keyboard.press("ArrowRight")
    assert "Equal steps of strength" in page.get_by_role("region", name="Examples").inner_text()
    assert page.get_by_role("heading", level=4).first.inner_text().startswith("activations of")


def test_tokens_of_examples_are_read_by_arrow_keys(watched):
    features = made_features()
    page = mount(watched, FeatureView(features, 3))
    page.get_by_role("gridcell").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    told = page.get_by_role("region", name="Examples").locator(".wb-readout").inner_text()
    assert told.startswith(f"{features[3].top[1].words[1].strip()} · token 1 of 32")


def test_a_neighbour_is_asked_for_and_the_focus_goes_to_what_came(watched):
    features = made_features()
    page = mount(watched, FeatureView(features, 3))
    first = page.get_by_role("table", name="Of like direction").get_by_role("button").first
    wanted = int(first.inner_text())
    first.focus()
    page.keyboard.press("Enter")
    assert sent(page, "number") == wanted
    view = FeatureView(features, wanted)
    page.evaluate("(card) => model.set('card', card)", json.loads(json.dumps(view.card)))
    assert page.evaluate("() => document.activeElement.textContent") == f"Feature {wanted} of 24"


def test_a_dead_feature_is_shown_without_examples(watched):
    features = made_features()
    page = mount(watched, FeatureView(features, 3))
    page.evaluate("(state) => model.set('card', state)", json.loads(json.dumps(FeatureView(features, 0).card)))
    assert "never active on 100,000 tokens" in page.locator("body").inner_text()
    assert page.get_by_role("region", name="Examples").count() == 0


# The browser.


def table_of(n, seed=SEED):
    generator = np.random.default_rng(seed)
    table = pd.DataFrame({"density": 10 ** generator.uniform(-5, -0.5, n), "max": generator.gamma(2, 2, n)})
    table["token"] = [f" word{i % 500}" for i in range(n)]
    table["label"] = [f"topic=value{i % 90}" for i in range(n)]
    table["f1"] = generator.random(n)
    table["dead"], table["dense"] = table["density"] == 0, table["density"] > 0.1
    return table


def lines(page):
    return [int(row.locator("[role=gridcell]").first.inner_text()) for row in page.locator(".wb-sheet .wb-row").all()]


def test_the_table_is_searched_sorted_and_walked_by_key(watched):
    view = BrowserView(table_of(2000))
    page = mount(watched, view)
    grid = page.get_by_role("grid", name="Table of features")
    assert lines(page)[:8] == view.matching()["feature"].tolist()[:8]
    assert len(lines(page)) < 25
    page.get_by_role("button", name="token").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelectorAll('[aria-sort=ascending]').length === 1")
    page.get_by_role("searchbox").fill("VALUE7 word2")
    view.query, view.order, view.falling = "VALUE7 word2", "token", False
    wanted = view.matching()["feature"].tolist()
    assert page.get_by_role("status").inner_text() == f"{len(wanted):,} of 2,000 features"
    assert grid.get_attribute("aria-rowcount") == f"{len(wanted) + 1}"
    assert lines(page)[:8] == wanted[:8]
    grid.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    assert sent(page, "chosen") == wanted[1]
    page.keyboard.press("End")
    assert lines(page)[-1] == wanted[-1]
    active = page.locator(f"[id='{grid.get_attribute('aria-activedescendant')}']")
    assert active.get_attribute("aria-rowindex") == f"{len(wanted) + 1}"
    page.get_by_role("searchbox").fill("nothing of the kind")
    assert page.get_by_role("status").inner_text() == "0 of 2,000 features"
    assert lines(page) == []


def test_points_are_found_by_pointer_and_by_key(watched):
    table = table_of(3).assign(density=[0.001, 0.01, 0.1], f1=[0.0, 1.0, 0.5], dense=False)
    page = mount(watched, BrowserView(table))
    field = page.get_by_role("application", name="Features: density, by the logarithm, against f1")
    box = field.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)  # halfway by the logarithm, at the top
    assert readout(page) == "Feature 1 · word1 · topic=value1 · density 0.01 · f1 1"
    page.mouse.move(box["x"] + 11, box["y"] + box["height"] - 10)
    page.mouse.down()
    page.mouse.up()
    assert sent(page, "chosen") == 0
    page.mouse.move(0, 0)
    page.get_by_role("combobox", name="Across").focus()
    page.keyboard.press("Tab")
    assert readout(page).startswith("Feature 0 ")
    for key, number in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowRight", 2), ("ArrowLeft", 1), ("ArrowDown", 0)):
        page.keyboard.press(key)
        assert readout(page).startswith(f"Feature {number} "), key
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert sent(page, "chosen") == 1


def test_features_without_a_place_are_counted_and_another_axis_may_have_one(watched):
    table = table_of(50)
    table.loc[:4, "density"] = 0.0
    page = mount(watched, BrowserView(table))
    assert readout(page).endswith("Without a place on these axes: 5.")
    page.get_by_role("combobox", name="Across").select_option("max")
    assert "Without" not in readout(page)
    assert sent(page, "across") == "max"


def test_fifty_thousand_features_are_drawn_searched_and_walked(watched):
    view = BrowserView(table_of(50_000))
    page = mount(watched, view)
    page.get_by_role("searchbox").fill("#49999")
    assert page.get_by_role("status").inner_text() == "1 of 50,000 features"
    page.get_by_role("searchbox").fill("")
    page.get_by_role("grid", name="Table of features").focus()
    page.keyboard.press("End")
    assert lines(page)[-1] == view.matching()["feature"].iloc[-1]
    assert len(lines(page)) < 25
    spent = page.evaluate(
        """async () => {
            const field = document.querySelector(".wb-field");
            const { left, top } = field.getBoundingClientRect();
            const begun = performance.now();
            for (let i = 0; i < 50; i++)
                field.dispatchEvent(new PointerEvent("pointermove", { clientX: left + 10 * i, clientY: top + 4 * i }));
            return (performance.now() - begun) / 50;
        }"""
    )
    assert spent < 50  # milliseconds, on a machine that others use too


def test_points_follow_the_theme(watched):
    page = mount(watched, BrowserView(table_of(100)))
    brightest = """() => {
        const canvas = document.querySelector("canvas");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        let [most, green] = [0, 0];
        for (let i = 0; i < data.length; i += 4) if (data[i + 3] > most) [most, green] = [data[i + 3], data[i + 1]];
        return green;
    }"""
    page.wait_for_function(f"() => ({brightest})() > 0")
    dark = page.evaluate("() => matchMedia('(prefers-color-scheme: dark)').matches")
    assert (page.evaluate(brightest) > 150) == dark  # sky blue, or blue
    page.emulate_media(color_scheme="light" if dark else "dark")
    page.wait_for_function(f"(dark) => (({brightest})() > 150) === dark", arg=not dark)


# Exported, and under foreign text.

PIECES = [FOREIGN, "<svg onload=hit()>", "javascript:hit()", "${hit()}", "'\"><b onclick=hit()>", "&lt;i&gt;", "]]>"]
PIECES += ["<!--", "\u202e", "\u2066", "\x00", "\x1b[31m", "\n", "\t", "👩\u200d🔬", "مرحبا", "שלום", "a\u0301\u0301"]


def hostile_words(n=1000):
    generator = random.Random(SEED)
    return ["".join(generator.choices(PIECES, k=generator.randint(1, 4))) for _ in range(n - 1)] + ["<p>" * 70_000]


def test_a_thousand_hostile_tokens_execute_nothing(watched, tmp_path):
    features = made_features(300, hostile_words())
    features.columns["example_tokens"][2:5, :12] = torch.arange(3 * 12 * 32).view(3, 12, 32) % 1000  # each of them
    browser = dictionary_browser(features)
    page = watched.page
    page.add_init_script("window.hits = 0; window.hit = () => hits++; window.alert = () => hits++;")
    page.goto(browser.export_html(tmp_path / "hostile.html", title=FOREIGN).as_uri())
    assert page.locator(".wb-sheet .wb-row").count() > 5
    for name in ("By quantile", "By interval"):
        page.get_by_role("radio", name=name).check()
    page.get_by_role("searchbox").fill(FOREIGN)
    assert page.evaluate("() => window.hits") == 0
    page.goto("about:blank")
    mount(watched, browser.dashboard.view)
    for number in range(2, 5):
        shown = FeatureView(features, number)
        page.evaluate("(card) => model.set('card', card)", json.loads(json.dumps(shown.card)))
    assert "<svg onload=hit()>" in page.locator("body").inner_text()
    assert page.locator("img, svg, script").count() == 0
    assert not re.search("[\x00\x1b\u202e\u2066]", page.content())
    page.set_content("".join(FeatureView(features, number).static_html() for number in range(2, 5)))
    assert page.locator("img, svg, script").count() == 0
    assert page.evaluate("() => window.hits") == 0


def test_an_exported_browser_is_searched_offline(watched, tmp_path):
    features = made_features(300)
    browser = dictionary_browser(features)
    page = watched.page
    page.goto(browser.export_html(tmp_path / "browser.html", title="All of them").as_uri())
    page.get_by_role("heading", name="All of them").wait_for()
    open_one = page.get_by_role("heading", name=f"Feature {browser.view.chosen} of 300")
    assert open_one.count() == 1
    assert page.get_by_role("table").get_by_role("button").count() == 0  # nobody there to open another
    page.get_by_role("searchbox").focus()
    page.keyboard.type("topic=sea word1")
    table = features.table
    wanted = ((table["label"] == "topic=sea") & table["token"].str.contains("word1")).sum()
    assert page.get_by_role("status").inner_text() == f"{wanted} of 300 features"
    page.get_by_role("radio", name="By interval").check()
    assert page.get_by_role("heading", level=4).count() == 5
    assert page.evaluate(LEAST_CONTRAST, "body") >= 4.5


# In the lab.

CELLS = [
    """
from workbench.features import load_features
from workbench.views.browser import dictionary_browser
features = load_features("FOLDER")
browser = dictionary_browser(features)
browser
""",
    """
from workbench.views.feature import feature_dashboard
feature_dashboard(features, 3)
""",
]


def cells(folder):
    made_features(300, hostile_words(50)).save(folder)
    return [cell.replace("FOLDER", str(folder)) for cell in CELLS]


def test_two_dashboards_keep_their_choices_of_examples_apart(page):
    boards = page.locator(".workbench-feature")
    assert boards.count() == 2
    boards.first.get_by_role("radio", name="By quantile").check()
    assert boards.last.get_by_role("radio", name="Strongest").is_checked()
    boards.first.get_by_role("radio", name="Strongest").check()
    assert boards.last.get_by_role("radio", name="Strongest").is_checked()


def test_a_choice_opens_a_dashboard_and_the_number_another(page):
    panel = page.locator(".workbench-browser")
    panel.get_by_role("searchbox").fill("#29")
    assert panel.get_by_role("status").inner_text() == "11 of 300 features"
    grid = panel.get_by_role("grid", name="Table of features")
    grid.focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    chosen = panel.locator(".wb-sheet [aria-selected=true] [role=gridcell]").first.inner_text()
    panel.get_by_role("heading", name=f"Feature {chosen} of 300").wait_for()
    panel.get_by_role("searchbox").fill("")
    panel.get_by_role("button", name="Previous").click()
    before = int(chosen) - 1
    panel.get_by_role("heading", name=f"Feature {before} of 300").wait_for()
    panel.locator(f".wb-sheet [aria-selected=true] >> text='{before}'").first.wait_for()
    other = panel.get_by_role("table", name="In its company").get_by_role("button").first
    number = other.inner_text()
    other.focus()
    page.keyboard.press("Enter")
    panel.get_by_role("heading", name=f"Feature {number} of 300").wait_for()
    assert page.evaluate("() => document.activeElement.textContent") == f"Feature {number} of 300"


def test_axes_change_and_all_text_is_legible(page):
    panel = page.locator(".workbench-browser")
    panel.get_by_role("combobox", name="Up").select_option("loss_effect")
    assert panel.get_by_role("application", name="against loss effect").count() == 1
    label, value = (panel.locator(f".wb-fact {tag}").first.bounding_box() for tag in ("dt", "dd"))
    assert label["x"] == value["x"]
    assert label["y"] + label["height"] <= value["y"]
    assert page.evaluate(LEAST_CONTRAST, ".workbench-browser") >= 4.5
    assert page.evaluate(LEAST_CONTRAST, ".jp-Cell:nth-of-type(2) .workbench-feature, .workbench-feature") >= 4.5


def test_the_notebook_gains_and_loses_no_cell_by_key(lab, opened, page):
    cells = lab.count_cells(opened)
    page.locator(".workbench-browser").get_by_role("grid", name="Table of features").focus()
    for key in ("b", "d", "d", "a"):
        page.keyboard.press(key)
    page.locator(".workbench-browser").get_by_role("application").focus()
    for key in ("ArrowLeft", "d", "d"):
        page.keyboard.press(key)
    assert lab.count_cells(opened) == cells


def test_a_dashboard_alone_moves_by_its_buttons(page):
    panel = page.locator(".workbench-feature").last
    panel.get_by_role("button", name="Next").click()
    panel.get_by_role("heading", name="Feature 4 of 300").wait_for()
    panel.get_by_role("spinbutton", name="Feature").fill("0")
    page.keyboard.press("Enter")
    panel.get_by_role("heading", name="Feature 0 of 300").wait_for()
    assert panel.get_by_role("button", name="Previous").is_disabled()
    assert "never active" in panel.inner_text()


def test_a_saved_notebook_shows_both(lab, opened):
    first, second = [
        "".join(output["data"]["text/html"])
        for cell in lab.cells(opened)
        for output in cell["outputs"]
        if "text/html" in output.get("data", {})
    ]
    assert "300 features, 1 dead, 1 dense" in first
    assert "Feature 3 of 300" in second
    assert len(first) < 60_000
