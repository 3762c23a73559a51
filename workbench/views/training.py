"""Watch a training and steer it: numbers and small curves, live, with pause, resume and cancel.

State: what is seen. Engine: the loop of the training, in a job. View: two buttons over a ``CurvesView``.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import ipywidgets
import traitlets
from typing_extensions import override

from workbench.training import Step, Training
from workbench.training.bar import by_name, memory_in_use
from workbench.views.base import Panel, rounded
from workbench.views.curves import CurvesView, Reading, Row, Seen, curve
from workbench.views.jobs import WORKER, Job, JobState, guarded

POINTS = 60
"""How many points a curve has at most."""

INTERVAL = 0.5
"""Seconds between two looks at a step, at least: reading what was measured waits for the device."""

OF_EACH = [
    ("loss", "Loss", "{:.3g}"),
    ("fvu", "FVU", "{:.3f}"),
    ("l0", "L0", "{:.1f}"),
    ("dead", "Dead", "{:.1%}"),
    ("lr", "Learning rate", "{:.1e}"),
]
"""What is shown of each dictionary: as a step calls it, as it is called here, and how it is written."""

OF_ALL = [("rate", "Tokens a second", "{:,.0f}"), ("memory", "Memory", "{:.1f} GiB"), ("left", "Time left", "time")]
"""What is shown of all together."""

FALLING = {"loss", "fvu"}
"""What is drawn on a scale of ratios: most of its way lies in the first steps."""


class TrainingState(JobState):
    """What is seen."""

    seen = traitlets.Instance(Seen, args=())


def training_panel(training: Training) -> "TrainingPanel":
    """Return a panel that runs ``training`` in the background once its button, or ``run``, starts it.

    Pausing waits for the step under way and saves, if there is a checkpoint directory; cancelling does too, and ends
    the training for good. Only one panel of a kernel is at work: a training that is started meanwhile waits, and its
    button then pauses the other, also one whose cell was run again. ``run_sync`` runs it in the cell instead, where the
    interrupt button saves and stops it.
    """
    return TrainingPanel(training)


class TrainingPanel(Panel):
    """The panel that ``training_panel`` returns."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.state = TrainingState()
        self.job: Job | None = None
        """The newest run in the background."""
        self._past: dict[int, tuple[float, dict[str | None, dict[str, float]]]] = {}
        """At so many places along the way, what was read there last: of each dictionary, and of all under None."""
        self._cancelled = False

        self.curves = CurvesView()
        self.toggle = ipywidgets.Button()
        self.cancel = ipywidgets.Button(description="Cancel")
        super().__init__([ipywidgets.HBox([self.toggle, self.cancel]), self.curves], self.state)
        self.add_class("workbench-training")
        traitlets.dlink((self.state, "error"), (self.curves, "error"))
        self.state.observe(self._show, names=["seen", "running", "waiting"])
        self.toggle.on_click(self._on_toggle)
        self.cancel.on_click(self._on_cancel)
        self._show()

    @guarded
    def _on_toggle(self, button: ipywidgets.Button) -> None:
        if self.state.waiting:
            WORKER.make_way()
        elif self.state.running:
            self.pause()
        else:
            self.run()

    @guarded
    def _on_cancel(self, button: ipywidgets.Button) -> None:
        self._cancelled = True
        self.pause()
        if not self.state.running:
            self.training.close()
            self._show()

    def pause(self) -> None:
        """Stop after the step under way."""
        self.training.pause()
        WORKER.cancel(self.state)  # it may still be waiting for its turn

    def run(self) -> Job:
        """Start, or go on, in the background."""
        self.job = WORKER.submit(self._work, self.state)
        return self.job

    def run_sync(self) -> None:
        """Run here to the end, or until the interrupt button."""
        WORKER.run_here(self._work, self.state)

    def _work(self, job: Job) -> None:
        report, looked = None, -INTERVAL
        try:
            for report in self.training.resume():
                if time.monotonic() - looked >= INTERVAL:
                    looked = time.monotonic()
                    self._look(by_name(report), job)
                if job.cancel.is_set():
                    self.training.pause()
        finally:
            if report is not None:
                self._look(by_name(report), job)  # the last one, however the loop was left
        if self._cancelled:
            self.training.close()

    def _look(self, steps: Mapping[str, Step], job: Job) -> None:
        """Read what ``steps`` measured, and post it with its past."""
        last = next(iter(steps.values()))
        held = memory_in_use(self.training.device) / 2**30
        share = last.step / last.steps
        read: dict[str | None, dict[str, float]] = {name: step.numbers() for name, step in steps.items()}
        read[None] = {"rate": last.tokens_per_second, "memory": held, "left": last.seconds_left}
        self._past[int(share * POINTS)] = share, read
        rows = [Row(name, [self._reading(name, *one) for one in OF_EACH]) for name in steps]
        count = f"Step {last.step:,} of {last.steps:,}"
        job.post(share, seen=Seen("", count, share, rows, [self._reading(None, *one) for one in OF_ALL]))

    def _reading(self, name: str | None, key: str, label: str, form: str) -> Reading:
        values = [(share, of[name][key]) for share, of in self._past.values()]
        first, last = (_written(form, value) for _, value in (values[0], values[-1]))
        return Reading(label, last, curve(values, log=key in FALLING), f"{label}, from {first} to {last}")

    def _show(self, change: Any = None) -> None:
        training, running, waiting = self.training, self.state.running, self.state.waiting
        saved = "" if training.directory is None else f", saved in '{training.directory}'"
        if waiting:
            status = "Waiting until another panel is done"
        elif running:
            status = "Running"
        elif training.finished:
            status = f"Finished{saved}"
        elif training.step or self._cancelled:
            status = f"{'Cancelled' if self._cancelled else 'Paused'} after step {training.step:,}{saved}"
        else:
            status = "Not started"
        self.curves.show(replace(self.state.seen, status=status))
        over = training.finished or self._cancelled
        and_save = "" if training.directory is None else ", and save"
        self.toggle.description = (
            "Pause the other" if waiting else "Pause" if running else "Resume" if training.step else "Start"
        )
        self.toggle.tooltip = (
            "Pause what another panel runs, and begin"
            if waiting
            else f"Stop after the step under way{and_save}"
            if running
            else "Train in the background"
        )
        self.cancel.tooltip = f"End the training for good{and_save}"
        self.toggle.disabled = self.cancel.disabled = over and not running

    @override
    def snapshot(self) -> dict[str, Any]:
        newest = [*self._past.values()][-1][1] if self._past else {}
        measured = {name: {key: of[key] for key, *_ in OF_EACH} for name, of in newest.items() if name is not None}
        return rounded({"step": self.training.step, "steps": self.training.config.steps, "measured": measured})


def _written(form: str, value: float) -> str:
    """Return ``value`` as ``form`` says; "time" is hours, minutes and seconds."""
    clock = str(timedelta(seconds=round(value))).removeprefix("0:").removeprefix("0")
    return clock if form == "time" else form.format(value)
