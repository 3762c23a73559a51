"""The notebooks' contract, checked without running them; and proof that the gate that runs them can fail."""

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import workbench

FOLDER = Path(workbench.__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
METADATA = {"minutes", "difficulty", "prerequisites", "model", "gpu"}
LONGEST = 20  # lines in a cell
WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(params=NOTEBOOKS, ids=lambda p: p.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code(notebook):
    return [c for c in notebook.cells if c.cell_type == "code"]


def prose(notebook):
    return "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")


def tagged(notebook, tag):
    return [c for c in notebook.cells if tag in c.metadata.get("tags", [])]


def outputs(notebook, kind):
    return [o.data for c in code(notebook) for o in c.outputs if kind in o.get("data", {})]


def test_there_are_notebooks_and_their_names_give_the_order():
    assert NOTEBOOKS
    assert all(re.fullmatch(r"\d\d_[a-z_]+", p.stem) for p in NOTEBOOKS)


def test_it_opens_with_a_question_and_says_what_it_takes(notebook):
    first = notebook.cells[0].source
    assert re.match(r"# .+\?\n", first)
    told = notebook.metadata["workbench"]
    assert set(told) == METADATA
    line = next(line for line in first.splitlines() if "min" in line and "·" in line)
    for value in (f"{told['minutes']} min", told["difficulty"], told["model"], "GPU"):
        assert value in line
    assert len(re.findall(r"^\*\*Claim\.\*\* ", first, re.MULTILINE)) == 1
    assert 3 <= len(re.findall(r"^- ", first[first.index("You will") :], re.MULTILINE)) <= 6


def test_it_runs_on_another_model_by_its_parameters(notebook):
    (cell,) = tagged(notebook, "parameters")
    assert 'MODEL = "tiny"' in cell.source
    assert cell is code(notebook)[0]


def test_cells_are_short_and_functions_live_in_the_package(notebook):
    for cell in code(notebook):
        assert len(cell.source.splitlines()) <= LONGEST, cell.source
        assert not re.search(r"^\s*(%pip|!|%matplotlib)", cell.source, re.MULTILINE)
    assert sum(len(re.findall(r"^def ", c.source, re.MULTILINE)) for c in code(notebook)) <= 2
    for before, after in zip(notebook.cells, notebook.cells[1:], strict=False):
        assert before.cell_type == "markdown" or after.cell_type == "markdown", (
            f"say first what this shows:\n{after.source}"
        )


def test_every_exercise_is_predicted_checked_hinted_and_solved(notebook):
    exercises = tagged(notebook, "exercise")
    assert 2 <= len(exercises) <= 4
    for cell in exercises:
        at = notebook.cells.index(cell)
        around = notebook.cells[at - 1].source + notebook.cells[at + 1].source
        assert "Predict" in around
        assert around.count("<details><summary>Hint") == 3
        assert around.count("<details><summary>Solution") == 1


def test_it_has_a_control_a_failure_its_limits_and_what_next(notebook):
    for heading in ("Control", "Break it", "Limits", "What we claim"):
        assert re.search(rf"^## .*{heading}", prose(notebook), re.MULTILINE), f"no section {heading!r}"
    last = code(notebook)[-1].source
    assert "assert " in last
    assert "not asserted" in last
    assert notebook.cells[-1].cell_type == "markdown"
    assert "**Next:**" in notebook.cells[-1].source


def test_it_is_saved_executed_and_light(notebook, request):
    path = FOLDER / f"{request.node.callspec.id}.ipynb"
    assert path.stat().st_size < 500_000
    assert [c.execution_count for c in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    kinds = [o.output_type for c in code(notebook) for o in c.outputs]
    assert "error" not in kinds
    streams = [o for c in code(notebook) for o in c.outputs if o.output_type == "stream"]
    assert not [o.text for o in streams if o.name == "stderr"]
    assert "widgets" not in notebook.metadata
    assert "id" in notebook.cells[0]
    assert not re.search(r"src=.{0,2}https?:", json.dumps(notebook))
    assert not re.search(r"(?<![\w.])/(home|root|work|tmp|Users)/", json.dumps(notebook))


def test_widgets_and_pictures_can_be_read_without_running(notebook):
    assert outputs(notebook, WIDGET)
    for data in outputs(notebook, WIDGET):
        assert data.get("text/html")
        assert data.get("text/plain")
    pictures = outputs(notebook, "image/png")
    assert pictures
    for data in pictures:
        assert len(data["text/plain"]) > 30, "a figure says in words what it decides"
        assert "Figure(" not in data["text/plain"]
    seen = [
        kind for c in code(notebook) for o in c.outputs for kind in o.get("data", {}) if kind in ("image/png", WIDGET)
    ]
    assert seen[0] == "image/png", "a static picture comes before the first widget"


def test_every_figure_is_drawn_with_its_assertion(notebook):
    drawn = [c for c in code(notebook) if any("image/png" in o.get("data", {}) for o in c.outputs)]
    assert drawn
    for cell in drawn:
        assert ".claims(" in cell.source, f"say what this figure shows, so that it can fail:\n{cell.source}"
        assert cell in tagged(notebook, "nbval-check-output"), f"compare the line of this figure:\n{cell.source}"


def test_decisions_are_compared_and_floats_are_not(notebook):
    checked = tagged(notebook, "nbval-check-output")
    assert checked
    for cell in checked:
        text = "".join(o.get("text", "") + "".join(o.get("data", {}).get("text/plain", "")) for o in cell.outputs)
        assert text.strip()
        assert not re.search(r"\d\.\d{3}", text), f"a raw float is compared as text:\n{text}"


def test_the_gate_fails_when_a_stored_decision_is_tampered_with(tmp_path):
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    compared = tagged(notebook, "nbval-check-output")
    printed = next(c for c in compared if c.outputs[0].output_type == "stream")
    figure = next(c for c in compared if "image/png" in c.outputs[0].get("data", {}))
    notebook.cells = notebook.cells[: 1 + max(map(notebook.cells.index, (printed, figure)))]

    def gate(name):
        nbformat.write(notebook, tmp_path / name)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"]
        return subprocess.run([*command, str(tmp_path / name)], capture_output=True, text=True, cwd=tmp_path)

    honest = gate("honest.ipynb")
    assert honest.returncode == 0, honest.stdout
    for holder, field in ((printed.outputs[0], "text"), (figure.outputs[0].data, "text/plain")):
        true = holder[field]
        holder[field] = "tampered " + true
        assert gate("tampered.ipynb").returncode == 1
        holder[field] = true
