"""How long each notebook takes, run from top to bottom: ``python tests/bench/bench_notebooks.py [NOTEBOOK ...]``.

In tiny mode and with all the cores that there are; what is promised holds of two that do nothing else.
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

SECONDS = 60


def main() -> None:
    folder = Path(__file__).parents[2] / "notebooks"
    for path in map(Path, sys.argv[1:] or sorted(folder.glob("*.ipynb"))):
        notebook = nbformat.read(path, as_version=4)
        start = time.perf_counter()
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}}).execute()
        took = time.perf_counter() - start
        print(f"{path.stem}: {took:.0f} s\n  {'pass' if took <= SECONDS else 'FAIL'}: at most {SECONDS} s")


if __name__ == "__main__":
    main()
