"""Run notebooks in place and save them as the contract wants.

``python tests/save_notebook.py notebooks/00_tour.ipynb``: executed from top to bottom, without widget state, timings
or anything else that differs from run to run.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def save(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources=resources, store_widget_state=False
    ).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        save(Path(name))
