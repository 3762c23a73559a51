"""Each view's module alone in a browser without a network: what is drawn, by keyboard and by eye.

A module is loaded with a small stand-in for the widget protocol, so that a test can also play the kernel.
"""

import base64
import itertools
import json

import pytest
from test_views import (
    FOREIGN,
    columns_view,
    curves_view,
    dictionary,
    feature_view,
    notes_view,
    prediction,
    scorecard,
    steering,
    token_view,
    training,
)

from e2e.conftest import Watched
from workbench.views.columns import Column, ColumnsView, Shown
from workbench.views.tokens import TokenView

STAND_IN = """async ({ source, state }) => {
    const listeners = {};
    window.sent = [];
    window.model = {
        get: (name) => state[name],
        set: (name, value) => {
            state[name] = value;
            (listeners[`change:${name}`] ?? []).forEach((listener) => listener());
        },
        on: (event, listener) => (listeners[event] ??= []).push(listener),
        off: () => {},
        save_changes: () => window.sent.push(structuredClone(state)),
    };
    const { default: view } = await import(`data:text/javascript;charset=utf-8;base64,${source}`);
    const el = document.createElement("div");
    document.body.append(el);
    window.dispose = await view.render({ model: window.model, el });
}"""

# The least contrast between a text within an element and what lies behind it, shades laid over each other.
LEAST_CONTRAST = """(within) => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
    const luminance = (colour) => {
        const [r, g, b] = colour.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const probe = document.body.appendChild(document.createElement("i"));
    probe.style.background = "Canvas";
    const canvasColour = rgba(getComputedStyle(probe).backgroundColor);
    probe.remove();
    const ground = (element) => element
        ? over(rgba(getComputedStyle(element).backgroundColor), ground(element.parentElement)) : canvasColour;
    let least = Infinity;
    const texts = document.createTreeWalker(document.querySelector(within), NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement;
        if (!texts.currentNode.data.trim() || !element.checkVisibility() || element.closest("script, style, noscript"))
            continue;
        const behind = ground(element);
        const pair = [over(rgba(getComputedStyle(element).color), behind), behind].map(luminance).sort((a, b) => b - a);
        least = Math.min(least, (pair[0] + 0.05) / (pair[1] + 0.05));
    }
    return least;
}"""

VIEWS = [
    token_view,
    columns_view,
    notes_view,
    steering,
    prediction,
    curves_view,
    training,
    feature_view,
    dictionary,
    scorecard,
]


def mount(watched, view):
    watched.page.set_content(
        "<!doctype html><style>:root { color-scheme: light dark; }</style>" + f"<style>{view._css}</style>"
    )
    source = base64.b64encode(str(view._esm).encode()).decode()
    watched.page.evaluate(STAND_IN, {"source": source, "state": json.loads(json.dumps(view.state()))})
    return watched.page


@pytest.mark.parametrize("make", VIEWS, ids=lambda make: make.__name__)
def test_an_exported_file_opens_offline_and_is_legible(watched, make, tmp_path):
    view = make()
    file = view.export_html(tmp_path / "view.html", title="A title")
    watched.page.goto(file.as_uri())
    watched.page.get_by_role("heading", name="A title").wait_for()
    watched.page.get_by_text(FOREIGN).first.wait_for()
    assert watched.page.locator("img").count() == 0
    assert watched.page.evaluate(LEAST_CONTRAST, "body") >= 4.5
    dark = "dark" in watched.page.evaluate("() => matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : ''")
    red, *_ = watched.page.evaluate("() => getComputedStyle(document.querySelector('.wb')).color.match(/\\d+/g)")
    assert (int(red) > 127) == dark


def test_an_error_appears_and_goes(watched):
    page = mount(watched, token_view())
    assert page.get_by_role("alert").count() == 0
    page.evaluate("() => model.set('error', 'No <b>such</b> token.')")
    assert page.get_by_role("alert").inner_text() == "No <b>such</b> token."
    page.evaluate("() => model.set('error', '')")
    assert page.get_by_role("alert").count() == 0


def test_keys_stay_inside_a_view_except_for_saving(watched):
    page = mount(watched, token_view())
    page.evaluate("() => { window.heard = []; document.addEventListener('keydown', (e) => heard.push(e.key)); }")
    page.get_by_role("gridcell").first.focus()
    for key in ("b", "d", "d", "Shift+Enter", "Control+s"):
        page.keyboard.press(key)
    assert page.evaluate("() => heard") == ["Shift", "Control", "s"] or page.evaluate("() => heard") == ["s"]


# Tokens.


def focused(page):
    return page.evaluate("() => document.activeElement.getAttribute('aria-label')")


def test_tokens_are_one_stop_and_arrows_move_between_them(watched):
    page = mount(watched, TokenView([["a", "b", "c"], ["d"]], [[0.0, 1.0, -2.0], [0.5]]))
    page.keyboard.press("Tab")
    assert focused(page) == "a, 0"
    walked = []
    for key in ("ArrowRight", "End", "ArrowRight", "ArrowDown", "ArrowUp", "ArrowLeft", "ArrowRight", "Home"):
        page.keyboard.press(key)
        walked.append(focused(page)[0])
    assert walked == ["b", "c", "c", "d", "a", "a", "b", "a"]
    assert page.locator("[tabindex='0']").count() == 1


def test_a_token_says_its_value_under_the_pointer_and_the_focus(watched):
    page = mount(watched, TokenView([["a", "dragon"]], [[0.0, -2.5]], titles=["one"], label="score"))
    readout = page.locator(".wb-readout")
    page.get_by_role("gridcell", name="dragon, −2.50").hover()
    assert readout.inner_text() == "dragon · token 1 of 2, one · score −2.50"
    page.mouse.move(500, 600)
    assert "Point at a token" in readout.inner_text()
    page.keyboard.press("Tab")
    assert readout.inner_text().startswith("a · token 0")
    assert readout.get_attribute("aria-live") == "polite"


def test_a_token_is_picked_by_key_and_by_mouse_and_put_back(watched):
    page = mount(watched, TokenView([["a", "b"], ["c"]], [[0.0, 1.0], [1.0]]))
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.evaluate("() => sent.at(-1).picked") == [0, 1]
    assert page.locator("[aria-selected=true]").inner_text() == "b"
    page.get_by_role("gridcell", name="c, +1.00").click()
    assert page.evaluate("() => sent.at(-1).picked") == [1, 0]
    page.keyboard.press("Escape")
    assert page.locator("[aria-selected=true]").count() == 0


def test_signs_differ_in_line_and_not_only_in_colour(watched):
    page = mount(watched, TokenView([["a", "b"]], [[1.0, -1.0]]))
    style = "(cell) => getComputedStyle(cell).borderBottomStyle"
    assert page.get_by_role("gridcell", name="a").evaluate(style) == "solid"
    assert page.get_by_role("gridcell", name="b").evaluate(style) == "dashed"


def test_pieces_of_words_stand_together_and_words_apart(watched):
    def gaps(tokens):
        page = mount(watched, TokenView([tokens], [[1.0] * len(tokens)]))
        boxes = [cell.bounding_box() for cell in page.get_by_role("gridcell").all()]
        return [right["x"] - left["x"] - left["width"] for left, right in itertools.pairwise(boxes)]

    assert gaps([" drag", "on", " ran"])[0] < 0 < gaps([" drag", "on", " ran"])[1]
    assert min(gaps(["the", "dragon", "ran"])) > 0


# Columns.


def state_of(*texts, share=0.25):
    columns = [
        Column(f"c{i}", [(piece, piece == " dragon") for piece in text], share, "1 of 4")
        for i, text in enumerate(texts)
    ]
    return Shown("caption", "the", columns, "Writing …")


def test_columns_grow_in_place_and_mark_the_targets(watched):
    view = ColumnsView()
    view.show(state_of([" red"], [" cat"]))
    page = mount(watched, view)
    page.evaluate("() => { window.first = document.querySelector('.wb-written').firstChild; }")
    view.show(state_of([" red", " dragon"], [" cat", " ran"], share=0.5))
    page.evaluate("(shown) => model.set('shown', shown)", json.loads(json.dumps(view.shown)))
    region = page.get_by_role("region", name="c0")
    assert region.locator("p").inner_text() == "the red dragon"
    assert region.get_by_role("mark").inner_text() == "dragon"
    assert page.evaluate("() => first.isConnected")
    bar = region.locator(".wb-bar").bounding_box()["width"]
    page.wait_for_function("([w]) => document.querySelector('.wb-fill').offsetWidth >= w", arg=[0.49 * bar])
    view.show(state_of([" blue"], [" cat"]))
    page.evaluate("(shown) => model.set('shown', shown)", json.loads(json.dumps(view.shown)))
    assert region.locator("p").inner_text() == "the blue"


def test_columns_stand_side_by_side_with_their_bars_in_line(watched):
    view = ColumnsView()
    view.show(state_of([" red"] * 60, [" cat"], [" dog"] * 9))
    page = mount(watched, view)
    boxes = [section.bounding_box() for section in page.get_by_role("region").all()]
    assert len({box["y"] for box in boxes}) == len({round(box["width"]) for box in boxes}) == 1
    assert len({bar.bounding_box()["y"] for bar in page.locator(".wb-bar").all()}) == 1


def test_an_exported_panel_turns_between_its_recorded_runs_by_key(watched, tmp_path):
    panel = steering()
    panel.run_sync(2.0)
    panel.run_sync(-1.0)
    watched.page.goto(panel.export_html(tmp_path / "steering.html").as_uri())
    slider = watched.page.get_by_role("slider", name="Recorded runs (3)")
    assert watched.page.locator(".wb-caption").inner_text() == "Strength −1, seed 0"
    slider.focus()
    watched.page.keyboard.press("End")
    assert watched.page.get_by_role("region", name="Steered (+2)").count() == 1
    watched.page.keyboard.press("ArrowLeft")
    assert watched.page.locator(".wb-caption").inner_text() == "Strength +1, seed 0"
    assert slider.get_attribute("aria-valuetext") == "Strength +1, seed 0"


def test_animation_stops_where_it_is_not_wanted(browser):
    context = browser.new_context(reduced_motion="reduce", offline=True)
    view = ColumnsView()
    view.show(state_of([" red"]))
    page = mount(Watched(context.new_page()), view)
    assert page.locator(".wb-fill").evaluate("(bar) => getComputedStyle(bar).transitionDuration") == "0s"
    context.close()


def test_a_metric_of_a_scorecard_opens_by_keyboard_to_what_it_is_made_of(watched):
    page = mount(watched, scorecard())
    assert page.get_by_text("Squared error over squared distance").is_hidden()
    page.get_by_role("button", name="variance unexplained").focus()
    page.keyboard.press("Enter")
    assert page.get_by_text("Squared error over squared distance").is_visible()
    assert page.get_by_role("button", name="variance unexplained").get_attribute("aria-expanded") == "true"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    assert page.get_by_text("Squared error over squared distance").is_hidden()  # one at a time
    page.get_by_role("button", name="labels told by 1").click()
    assert page.get_by_role("rowheader", name="topic sea").is_visible()
    assert page.evaluate("() => sent.at(-1).opened") == "probe_1@1"
    page.evaluate("() => model.set('opened', '')")
    assert page.locator("[aria-expanded=true]").count() == 0
