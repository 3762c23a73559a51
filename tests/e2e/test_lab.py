"""The widgets in JupyterLab: run, steered by mouse and keyboard, cancelled, saved, reopened, exported."""

import json
import shutil

import nbformat

from e2e.conftest import Watched
from e2e.test_modules import LEAST_CONTRAST

CELLS = [
    """
import time
import torch
from workbench.models import GeneratedToken
from workbench.views.steering import SteeringPanel

def write(prompt, vector, seed, cancel):
    if "unicorn" in prompt:
        raise ValueError("'unicorn' is not in the vocabulary.")
    for i in range(40):
        time.sleep(0.008)
        yield GeneratedToken(i, " dragon" if vector is not None and vector[0] > 0 else " cat", i, -1.0)

panel = SteeringPanel(write, direction=torch.ones(2), prompt="the", targets=["dragon"], max_new_tokens=40)
panel.run_sync(1.0)
panel
""",
    """
from workbench.views.tokens import TokenView
tokens = TokenView([["<bos>", "the", "dragon"]], [[0.0, -1.0, 2.0]])
tokens
""",
    """
from workbench.exercises.exercise import Exercise
from workbench.exercises.keys import key, seal
from workbench.views.exercise import predict
question = Exercise(id="x", question="Which way?", checker=key("x", seal("x", "left")),
                    hints=("a", "b", "c"), choices=("left", "right"))
prediction = predict(question, reveal="It went left.")
prediction
""",
    'panel.export_html("steering.html");',
]


def cells(folder):
    return CELLS


def steering(page):
    return page.locator(".workbench-steering")


def wait_for_title(page, title):
    steering(page).get_by_role("region", name=title, exact=True).wait_for()


def status(page, text):
    steering(page).get_by_role("status").filter(has_text=text).wait_for()


def test_the_widgets_are_there_named_and_legible(page):
    panel = steering(page)
    assert panel.get_by_role("textbox", name="Prompt").input_value() == "the"
    for role, name in [("slider", "Strength"), ("spinbutton", "Strength as a number"), ("spinbutton", "Seed")]:
        assert panel.get_by_role(role, name=name, exact=True).count() == 1
    assert panel.get_by_role("button", name="Cancel").is_disabled()
    status(page, "Done: steered (+1) 100%, unsteered 0%")
    for view in (".wb-tokens", ".workbench-steering .wb", ".workbench-prediction"):
        assert page.evaluate(LEAST_CONTRAST, view) >= 4.5, view


def test_the_slider_by_keyboard(page):
    handle = steering(page).get_by_role("slider", name="Strength", exact=True)
    handle.focus()
    page.keyboard.press("ArrowRight")
    wait_for_title(page, "Steered (+1.1)")
    assert steering(page).get_by_role("spinbutton", name="Strength as a number").input_value() == "1.1"
    assert handle.evaluate("(handle) => handle === document.activeElement")


def test_the_slider_by_mouse_takes_over_a_run_that_is_going_on(page):
    bar = steering(page).locator(".noUi-base").bounding_box()
    page.mouse.click(bar["x"] + 2, bar["y"] + bar["height"] / 2)
    wait_for_title(page, "Steered (−2)")
    page.wait_for_timeout(400)  # the handle glides to where it was told, and cannot be taken on its way
    page.mouse.move(bar["x"] + 2, bar["y"] + bar["height"] / 2)
    page.mouse.down()
    page.mouse.move(bar["x"] + 0.75 * bar["width"], bar["y"] + 3, steps=5)
    page.mouse.up()
    wait_for_title(page, "Steered (+1)")
    status(page, "Done: steered (+1) 100%, unsteered 0%")


def test_the_number_box(page):
    box = steering(page).get_by_role("spinbutton", name="Strength as a number")
    box.fill("-0.5")
    box.press("Enter")
    wait_for_title(page, "Steered (−0.5)")
    status(page, "Done: steered (−0.5) 0%")


def test_cancelling_stops_the_texts(page):
    steering(page).get_by_role("button", name="Generate").click()
    status(page, "Writing")
    steering(page).get_by_role("button", name="Cancel").click()
    status(page, "Cancelled")
    text = steering(page).get_by_role("region", name="Unsteered").locator("p")
    stopped = text.inner_text()
    page.wait_for_timeout(300)
    assert text.inner_text() == stopped
    assert stopped.count("cat") < 40
    steering(page).get_by_role("button", name="Generate").click()
    status(page, "Done")


def test_a_bad_prompt_is_said_in_the_panel(page):
    prompt = steering(page).get_by_role("textbox", name="Prompt")
    prompt.fill("the unicorn")
    prompt.press("Enter")
    steering(page).get_by_role("alert").filter(has_text="'unicorn' is not in the vocabulary.").wait_for()
    prompt.fill("the")
    prompt.press("Enter")
    status(page, "Done")
    assert steering(page).get_by_role("alert").count() == 0


def test_no_key_pressed_in_a_widget_reaches_the_cells(lab, opened, page):
    before = lab.count_cells(opened)
    panel, exercise = steering(page), page.locator(".workbench-prediction")
    places = [
        panel.get_by_role("slider", name="Strength", exact=True),
        panel.get_by_role("button", name="Generate"),
        panel.get_by_role("spinbutton", name="Seed"),
        page.get_by_role("gridcell", name="dragon, +2.00"),
        exercise.get_by_role("radio", name="left"),
        exercise.get_by_role("button", name="Commit"),
    ]
    for place in places:
        place.focus()
        for key in ("b", "d", "d", "x", "m"):
            page.keyboard.press(key)
        assert lab.count_cells(opened) == before, place
    # The same keys do act outside, so the test can fail.
    page.keyboard.press("Escape")
    page.locator(".jp-Cell").last.locator(".jp-InputPrompt").click()
    page.keyboard.press("b")
    assert lab.count_cells(opened) == before + 1
    page.keyboard.press("d")
    page.keyboard.press("d")
    assert lab.count_cells(opened) == before


def test_a_token_picked_in_the_browser_is_known_to_the_kernel(page):
    cell = page.get_by_role("gridcell", name="dragon, +2.00")
    cell.click()
    page.locator("[aria-selected=true]").filter(has_text="dragon").wait_for()
    page.get_by_text("Picked: dragon · token 2 of 3").wait_for()


def test_a_prediction_is_committed_before_it_is_answered(page):
    exercise = page.locator(".workbench-prediction")
    assert exercise.get_by_text("It went left.").count() == 0
    exercise.get_by_role("button", name="Commit").click()
    exercise.get_by_role("alert").filter(has_text="Make a prediction first").wait_for()
    exercise.get_by_role("radio", name="right").check()
    exercise.get_by_role("button", name="Commit").click()
    exercise.get_by_text("You predicted 'right': not so.").wait_for()
    exercise.get_by_text("It went left.").wait_for()
    assert exercise.get_by_role("button", name="Commit").is_disabled()


def test_the_exported_file_opens_with_the_network_blocked(lab, opened, browser):
    context = browser.new_context(offline=True)
    export = Watched(context.new_page())
    export.page.goto((lab.folder / "steering.html").as_uri())
    export.page.get_by_role("region", name="Steered (+1)").get_by_role("mark").first.wait_for()
    export.assert_clean()
    context.close()


def test_a_saved_notebook_shows_the_pictures_before_it_is_run(lab, opened, page):
    saved = json.dumps({"cells": lab.cells(opened), "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    assert len(saved) < 100_000
    fresh = lab.folder.parent / f"reopened_{page.evaluate('() => document.body.dataset.jpThemeLight')}.ipynb"
    notebook = nbformat.reads(saved, as_version=4)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, fresh)
    again = lab.open(fresh, dark="false" in fresh.name)
    again.page.get_by_text("Steered (+1)").first.wait_for()
    again.page.locator(".jp-OutputArea").get_by_text("dragon").first.wait_for()
    assert again.page.get_by_text("Error displaying widget").count() == 0
    again.assert_clean()
    again.page.context.close()
    shutil.rmtree(fresh, ignore_errors=True)
