"""A training in a terminal: a progress bar, and below it a line for each dictionary."""

import time
from collections.abc import Iterator
from typing import Any

import psutil
import torch
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from typing_extensions import override

from workbench.training.loop import Report, Training
from workbench.training.step import Step

INTERVAL = 0.25
"""Seconds between two looks at a step, at least: reading what was measured waits for the device."""

LOGGED = 20.0
"""Seconds between two lines of a log, at least."""

WRITTEN = {"loss": "{:.3g}", "fvu": "{:.3f}", "l0": "{:.1f}", "dead": "{:.1%}", "lr": "{:.1e}"}
"""How the numbers of a step are written."""


class Bar(Progress):
    """A progress bar on the standard error, and what stands below it; in a log, written anew now and then."""

    def __init__(self, unit: str) -> None:
        share = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f}%"))
        left = (TimeRemainingColumn(), TextColumn("left {task.fields[told]}"))
        self.below: RenderableType | None = None
        self._logged = time.monotonic()
        super().__init__(*share, MofNCompleteColumn(), TextColumn(f"{unit} ·"), *left, console=Console(stderr=True))

    @override
    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        if self.below is not None:
            yield self.below

    @override
    def update(self, *args: Any, **kwargs: Any) -> None:
        super().update(*args, **kwargs)
        moves = self.console.is_terminal or self.console.is_jupyter
        if not moves and time.monotonic() - self._logged >= LOGGED:
            self._logged = time.monotonic()
            self.console.print(*self.get_renderables())


def progress(training: Training[Report]) -> Iterator[Report]:
    """Yield what ``training`` does, behind a bar on the standard error; loop over this in its place."""
    shown = -INTERVAL
    with Bar("steps") as bar:
        task = bar.add_task("training", total=training.config.steps, completed=training.step, told="")
        for report in training:
            if training.finished or time.monotonic() - shown >= INTERVAL:
                shown = time.monotonic()
                steps = [*by_name(report).values()]
                held = memory_in_use(training.device) / 2**30
                bar.below = table(steps)
                told = f"· {steps[0].tokens_per_second:,.0f} tokens/s · {held:.1f} GiB"
                bar.update(task, completed=training.step, told=told)
            yield report


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
