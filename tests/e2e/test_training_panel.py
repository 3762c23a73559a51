"""The training panel in JupyterLab: started, paused, resumed and cancelled while the loop runs in the background."""

from e2e.test_modules import LEAST_CONTRAST

CELLS = [
    """
import time
import torch
from workbench.dictionaries import JumpReLU, TopK
from workbench.training import TrainConfig, train, train_many
from workbench.views.training import training_panel

def batches():
    seed = torch.Generator().manual_seed(0)
    V = torch.nn.functional.normalize(torch.randn(64, 16, generator=seed), dim=-1)
    while True:
        time.sleep(0.01)
        yield (torch.rand(256, 64, generator=seed) * (torch.rand(256, 64, generator=seed) < 0.05)) @ V

panel = training_panel(train(TopK(16, 64, k=4), batches(), TrainConfig(steps=600, lr=3e-3), checkpoint="kept"))
panel
""",
    """
pair = {"TopK, 64": TopK(16, 64, k=4), "TopK, 256": TopK(16, 256, k=4), "JumpReLU, 128": JumpReLU(16, 128, l0=4)}
many = training_panel(train_many(pair, batches(), TrainConfig(steps=60)))
many.run_sync()
many
""",
]


def cells(folder):
    return [cell.replace("kept", f"kept_{folder.name}") for cell in CELLS]


def first(page):
    return page.locator(".workbench-training").first


def status(page, text):
    first(page).get_by_role("status").filter(has_text=text).wait_for()


def step(page):
    return int(first(page).locator(".wb-state span").first.inner_text().split()[1].replace(",", ""))


def test_a_training_is_started_paused_and_resumed(page):
    status(page, "Not started")
    first(page).get_by_role("button", name="Start").click()
    status(page, "Running")
    first(page).get_by_role("region", name="FVU").wait_for()
    first(page).get_by_role("button", name="Pause").click()
    status(page, "Paused after step")
    paused = first(page).get_by_role("status").inner_text()
    assert "saved in 'kept_" in paused
    page.wait_for_timeout(700)
    assert first(page).get_by_role("status").inner_text() == paused
    first(page).get_by_role("button", name="Resume").click()
    page.wait_for_function(
        "([panel, paused]) => panel.querySelector('.wb-state span').textContent.match(/\\d+/)[0] > paused",
        arg=[first(page).element_handle(), int(paused.split()[3].rstrip(","))],
    )
    assert page.evaluate(LEAST_CONTRAST, ".workbench-training .wb") >= 4.5


def test_numbers_stand_on_one_line_with_their_curves(page):
    tiles = [tile.bounding_box() for tile in first(page).get_by_role("region").all()]
    assert len(tiles) == 8
    assert [len({round(tile["y"]) for tile in tiles[row : row + 4]}) for row in (0, 4)] == [1, 1]
    assert len({round(tile["width"]) for tile in tiles}) == 1
    assert first(page).get_by_role("img", name="FVU, from").count() == 1


def test_a_cancelled_training_is_over(page):
    first(page).get_by_role("button", name="Cancel").click()
    status(page, "Cancelled after step")
    assert first(page).get_by_role("button", name="Resume").is_disabled()
    assert first(page).get_by_role("button", name="Cancel").is_disabled()


def test_several_dictionaries_are_rows_of_a_table(page):
    table = page.locator(".workbench-training").last.get_by_role("table")
    assert [head.inner_text() for head in table.get_by_role("rowheader").all()] == [
        "TopK, 64",
        "TopK, 256",
        "JumpReLU, 128",
    ]
    assert [head.inner_text() for head in table.get_by_role("columnheader").all()] == [
        "Loss",
        "FVU",
        "L0",
        "Dead",
        "Learning rate",
    ]
    assert table.get_by_role("img").count() == 15


def test_a_saved_notebook_shows_what_was_measured(lab, opened):
    *_, cell = [cell for cell in lab.cells(opened) if cell["source"]]
    (html,) = [output["data"]["text/html"] for output in cell["outputs"] if "text/html" in output.get("data", {})]
    assert "Step 60 of 60 · Finished" in "".join(html)
    assert "TopK, 256" in "".join(html)
