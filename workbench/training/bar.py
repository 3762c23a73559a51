"""A training in a terminal: a progress bar, and below it a line for each dictionary."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import psutil
import torch
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from workbench.training.loop import Report, Training
from workbench.training.step import Step

INTERVAL = 0.25
"""Seconds between two looks at a step, at least: reading what was measured waits for the device."""

WRITTEN = {"loss": "{:.3g}", "fvu": "{:.3f}", "l0": "{:.1f}", "dead": "{:.1%}", "lr": "{:.1e}"}
"""How the numbers of a step are written."""


def progress(training: Training[Report]) -> Iterator[Report]:
    """Yield what ``training`` does, behind a bar on the standard error; loop over this in its place."""
    bar = bar_of("steps")
    task = bar.add_task("training", total=training.config.steps, completed=training.step, told="")
    shown = -INTERVAL
    with ExitStack() as after:
        if not bar.console.is_terminal:
            after.callback(bar.console.line)  # what comes next begins a line of its own, however the loop is left
        with Live(bar, console=bar.console, auto_refresh=False) as live:
            for report in training:
                if training.finished or time.monotonic() - shown >= INTERVAL:
                    shown = time.monotonic()
                    steps = [*by_name(report).values()]
                    held = memory_in_use(training.device) / 2**30
                    told = f"· {steps[0].tokens_per_second:,.0f} tokens/s · {held:.1f} GiB"
                    bar.update(task, completed=training.step, told=told)
                    live.update(Group(bar, table(steps)), refresh=True)
                yield report


def bar_of(unit: str) -> Progress:
    """Return an empty progress bar on the standard error; its tasks may have something to tell."""
    share = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f}%"))
    left = (TimeRemainingColumn(), TextColumn("left {task.fields[told]}"))
    return Progress(*share, MofNCompleteColumn(), TextColumn(f"{unit} ·"), *left, console=Console(stderr=True))


def table(steps: list[Step]) -> Table:
    """Return what ``steps`` measured, a line for each dictionary."""
    grid = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("", *WRITTEN):
        grid.add_column(heading, justify="right" if heading else "left")
    for step in steps:
        numbers = step.numbers()
        grid.add_row(step.name, *(form.format(numbers[name]) for name, form in WRITTEN.items()))
    return grid


def by_name(report: Step | dict[str, Step]) -> dict[str, Step]:
    """Return what an iteration of a training gave, by the names of the dictionaries."""
    return {report.name: report} if isinstance(report, Step) else report


def memory_in_use(device: torch.device) -> int:
    """Return the bytes that this process holds, on a GPU those that torch has given out."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return psutil.Process().memory_info().rss
