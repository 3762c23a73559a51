"""A real browser and a real JupyterLab, both cut off from the network.

Without chromium or playwright these tests are skipped with a loud reason; with ``WORKBENCH_E2E=1`` that is a
failure instead. Every request that does not go to this machine is aborted and counted, and the count must be 0.
"""

import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    missing = "chromium" if CHROMIUM is None else ""
    if importlib.util.find_spec("playwright") is None:
        missing = "the Python package playwright"
    if missing:
        reason = f"THE BROWSER TESTS DID NOT RUN: {missing} is not installed."
        if os.environ.get("WORKBENCH_E2E") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@dataclass
class Watched:
    """A page, and what went wrong on it."""

    page: Any
    external: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.route("**/*", self._local_only)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)

    def _local_only(self, route: Any) -> None:
        url = route.request.url
        if url.startswith(("http://127.0.0.1:", "file://", "data:", "blob:")):
            route.continue_()
        else:
            self.external.append(url)
            route.abort()

    def assert_clean(self) -> None:
        assert self.external == []
        assert self.errors == []


@pytest.fixture(params=["light", "dark"])
def watched(browser: Any, request: pytest.FixtureRequest) -> Iterator[Watched]:
    """An empty page that is offline, in either colour scheme."""
    context = browser.new_context(color_scheme=request.param, offline=True, viewport={"width": 1000, "height": 700})
    watched = Watched(context.new_page())
    yield watched
    watched.assert_clean()
    context.close()


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab."""

    base: str
    token: str
    folder: Path
    browser: Any

    def open(self, notebook: Path, *, dark: bool = False) -> Watched:
        """Open ``notebook`` and wait for its kernel; the session is attached before anything runs."""
        self._settings("themes", {"theme": "JupyterLab Dark" if dark else "JupyterLab Light"})
        target = self.folder / notebook.name  # a copy: nothing here is written back
        if notebook != target:
            shutil.copy(notebook, target)
        context = self.browser.new_context(viewport={"width": 1280, "height": 1000})
        watched = Watched(context.new_page())
        page = watched.page
        page.goto(f"{self.base}/lab/tree/{notebook.name}?token={self.token}&reset")
        page.wait_for_function(
            "() => window.jupyterapp && window.jupyterapp.shell.currentWidget?.context?.isReady", timeout=60_000
        )
        _await(
            page,
            """const widget = window.jupyterapp.shell.currentWidget;
            await widget.context.ready;
            await widget.context.sessionContext.ready;
            await widget.context.sessionContext.session.kernel.info;""",
        )
        return watched

    def run(self, cells: list[str], path: Path, *, dark: bool) -> Watched:
        """Write ``cells`` to a notebook at ``path``, open it and run it; none of them may end in an error."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        )
        nbformat.write(notebook, path)
        watched = self.open(path, dark=dark)
        assert self.run_all(watched) == []
        return watched

    def run_all(self, watched: Watched) -> list[str]:
        """Run every cell, wait until all are done, and return the errors that cells ended in."""
        _await(watched.page, "await window.jupyterapp.commands.execute('notebook:run-all-cells');")
        return [
            output["evalue"]
            for cell in self.cells(watched)
            for output in cell.get("outputs", [])
            if output["output_type"] == "error"
        ]

    def cells(self, watched: Watched) -> list[dict[str, Any]]:
        """Return the cells as they would be saved."""
        return watched.page.evaluate("() => window.jupyterapp.shell.currentWidget.model.toJSON().cells")

    def switch(self, watched: Watched, *, dark: bool) -> None:
        """Change the theme of the open page."""
        theme = "JupyterLab Dark" if dark else "JupyterLab Light"
        _await(
            watched.page, f"await window.jupyterapp.commands.execute('apputils:change-theme', {{theme: '{theme}'}});"
        )
        light = "false" if dark else "true"
        watched.page.wait_for_function("(light) => document.body.dataset.jpThemeLight === light", arg=light)
        # JupyterLab shows its splash meanwhile; two at once, and it trips over removing the same one twice.
        watched.page.locator("#jupyterlab-splash").wait_for(state="detached")

    def count_cells(self, watched: Watched) -> int:
        """Return the number of cells."""
        return len(self.cells(watched))

    def _settings(self, name: str, values: dict[str, Any]) -> None:
        folder = self.folder.parent / "settings" / "@jupyterlab" / "apputils-extension"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.jupyterlab-settings").write_text(json.dumps(values))


def _await(page: Any, body: str, seconds: float = 300.0) -> None:
    """Run asynchronous JavaScript in ``page``, with a limit of time, which ``evaluate`` has not."""
    page.evaluate(
        """(body) => {
            window.outcome = null;
            new (async () => {}).constructor(body)().then(
                () => { window.outcome = "done"; }, (error) => { window.outcome = `${error}`; });
        }""",
        body,
    )
    page.wait_for_function("() => window.outcome !== null", timeout=1000 * seconds)
    outcome = page.evaluate("() => window.outcome")
    assert outcome == "done", outcome


@pytest.fixture(scope="session")
def lab(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if importlib.util.find_spec("jupyterlab") is None:
        pytest.fail("jupyterlab is a dependency of the workbench, but it is not installed.")
    home = tmp_path_factory.mktemp("lab")
    notebooks = home / "notebooks"
    notebooks.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    running = Lab(f"http://127.0.0.1:{port}", token, notebooks, browser)
    # No news pop-up over the widgets.
    running._settings("notification", {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True})
    environment = {
        **os.environ,
        "HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", "--allow-root", f"--IdentityProvider.token={token}"]
    command += [f"--ServerApp.root_dir={notebooks}", "--LabApp.expose_app_in_browser=True"]
    command += ["--ServerApp.terminals_enabled=False"]
    with (home / "log.txt").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait_for(running, server, home / "log.txt")
            yield running
        finally:
            server.terminate()
            server.wait(20)


@pytest.fixture(scope="module", params=["light", "dark"])
def opened(lab: Lab, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A notebook of the module's ``cells(folder)``, run once in each theme; its tests follow each other on it."""
    folder = tmp_path_factory.mktemp("made")
    path = folder / f"{request.path.stem}_{request.param}.ipynb"
    watched = lab.run(request.module.cells(folder), path, dark=request.param == "dark")
    yield watched
    watched.page.context.close()


@pytest.fixture
def page(opened: Watched) -> Iterator[Any]:
    yield opened.page
    opened.assert_clean()


def _wait_for(lab: Lab, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"{lab.base}/api/status?token={lab.token}", timeout=2)
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start; its log ends:\n{log.read_text()[-2000:]}")
