"""The shipped notebooks, run in JupyterLab with the network blocked, and their widgets used by mouse and keyboard."""

from pathlib import Path

import nbformat
import pytest

from e2e.conftest import Watched
from e2e.test_modules import LEAST_CONTRAST

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"

EXPORT = """
from workbench.views.steering import SteeringPanel
shown = next(thing for thing in list(globals().values()) if isinstance(thing, SteeringPanel))
shown.export_html("{name}.html");
"""


@pytest.mark.parametrize("name", ["00_tour"])
def test_it_runs_steers_cancels_and_exports(lab, browser, tmp_path, name):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(EXPORT.format(name=name).strip()))
    nbformat.write(notebook, tmp_path / f"{name}.ipynb")

    watched = lab.open(tmp_path / f"{name}.ipynb")
    assert lab.run_all(watched) == []
    page = watched.page
    panel = page.locator(".workbench-steering").last
    panel.scroll_into_view_if_needed()
    steered = panel.locator("section").first
    status = panel.get_by_role("status").last
    for dark in (True, False):
        lab.switch(watched, dark=dark)
        assert page.evaluate(LEAST_CONTRAST, ".workbench-steering .wb") >= 4.5

    # By keyboard: the title names the new strength, and the run comes to its end.
    handle = panel.get_by_role("slider", name="Strength", exact=True)
    before = steered.get_attribute("aria-label")
    handle.focus()
    page.keyboard.press("ArrowLeft")
    panel.locator(f'section:first-child:not([aria-label="{before}"])').wait_for()
    status.filter(has_text="Done").wait_for()

    # By mouse, to the lower end, and cancelled on the way.
    lowest = float(handle.get_attribute("aria-valuemin"))
    bar = panel.locator(".noUi-base").bounding_box()
    page.mouse.click(bar["x"] + 2, bar["y"] + bar["height"] / 2)
    panel.get_by_role("region", name=f"Steered ({lowest:+g})".replace("-", "−"), exact=True).wait_for()
    panel.get_by_role("button", name="Cancel").click()
    status.filter(has_text="Cancelled").wait_for()

    # No key of a control reaches the cells.
    cells = lab.count_cells(watched)
    handle.focus()
    for key in ("b", "d", "d"):
        page.keyboard.press(key)
    assert lab.count_cells(watched) == cells
    watched.assert_clean()
    page.context.close()

    context = browser.new_context(offline=True)
    export = Watched(context.new_page())
    export.page.goto((lab.folder / f"{name}.html").as_uri())
    assert export.page.get_by_role("region").count() == 3
    export.assert_clean()
    context.close()


def test_documents_are_browsed_by_family_and_coloured_by_label_or_surprise(lab):
    watched = lab.open(NOTEBOOKS / "01_a_world_we_know.ipynb")
    assert lab.run_all(watched) == []
    page = watched.page
    panel = page.locator(".workbench-documents").last
    panel.scroll_into_view_if_needed()
    text, family, colour = (panel.locator(at).first for at in (".wb", "select >> nth=0", "select >> nth=1"))
    family.select_option("machine")
    text.get_by_text("whistle").or_(text.get_by_text("horn")).first.wait_for()
    before = text.inner_text()
    panel.get_by_role("button", name="More").click()
    page.wait_for_function("([at, before]) => at.innerText !== before", arg=[text.element_handle(), before])
    colour.select_option("state: awake")
    text.get_by_text("state: awake").first.wait_for()
    for dark in (True, False):
        lab.switch(watched, dark=dark)
        assert page.evaluate(LEAST_CONTRAST, ".workbench-documents .wb") >= 4.5
    watched.assert_clean()
    page.context.close()
