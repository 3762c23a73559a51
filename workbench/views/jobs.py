"""Slow work behind a widget, cancellable, in one background thread per kernel.

A handler that computes keeps every later message waiting, the click on Cancel included, so whatever takes
longer than a blink is a job here. A job speaks to its widget only by setting traits of its ``JobState``, at
most ten times a second; nothing printed in the thread would be seen. A job that draws random
numbers makes a generator from its own seed: torch's global one is shared with the cells of the notebook.
"""

import functools
import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import traitlets

Handler = TypeVar("Handler", bound=Callable[..., Any])

INTERVAL = 0.1
"""Seconds between two updates of the same state, at least."""


def guarded(handler: Handler) -> Handler:
    """Show what goes wrong in a handler as the ``error`` of its object, instead of losing it.

    Widgets log and swallow the exceptions of clicks and custom messages. With ``WORKBENCH_STRICT=1`` the
    exception is raised as well, so that tests see it.
    """

    @functools.wraps(handler)
    def inner(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            self.error = ""
            return handler(self, *args, **kwargs)
        except Exception as error:
            self.error = _sentence(error)
            if os.environ.get("WORKBENCH_STRICT") == "1":
                raise

    return inner  # type: ignore[return-value]


def _sentence(error: BaseException) -> str:
    """Return what ``error`` says; its type too, unless it is of a kind that ours are, sentences already."""
    if isinstance(error, ValueError | TypeError | KeyError | traitlets.TraitError) and error.args:
        return str(error.args[0])
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


class JobState(traitlets.HasTraits):
    """What a widget shows of its job."""

    running = traitlets.Bool(False)
    """Whether it has work, under way or waiting for its turn."""

    waiting = traitlets.Bool(False)
    """Whether that work waits until another widget's is done."""

    progress = traitlets.Float(0.0)
    error = traitlets.Unicode("")


class Job:
    """One piece of work: call ``work(job)``, watch ``cancel``, tell ``post``."""

    def __init__(self, work: Callable[["Job"], None], state: JobState) -> None:
        self.work = work
        self.state = state
        self.cancel = threading.Event()
        """Set when the work is no longer wanted; the work looks at it once per token or step."""
        self.failure: BaseException | None = None
        self.ended = threading.Event()
        """Set by the worker when nothing more will come, the state's ``running`` included."""
        self._news: dict[str, Any] = {}
        self._last = -INTERVAL

    def post(self, progress: float, **traits: Any) -> None:
        """Show ``progress`` (0 to 1) and new values of the state's traits, now or with a later call."""
        self._news |= traits | {"progress": min(max(progress, 0.0), 1.0)}
        if time.monotonic() - self._last >= INTERVAL:
            self._flush()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the job has ended and raise what it raised; False if ``timeout`` seconds did not do."""
        ended = self.ended.wait(timeout)
        if self.failure is not None:
            raise self.failure
        return ended

    def run(self) -> None:
        """Run the work in this thread, without gradients, and show its error."""
        self.state.error = ""
        self.state.running = True
        self.state.waiting = False
        try:
            if not self.cancel.is_set():
                with torch.no_grad():  # the switch is per thread, so it is set here
                    self.work(self)
        except BaseException as error:
            self.failure = error
            self.state.error = _sentence(error)
        finally:
            self._flush()

    def _flush(self) -> None:
        self._last = time.monotonic()
        news, self._news = self._news, {}
        for name, value in news.items():
            setattr(self.state, name, value)


class Worker:
    """One thread that runs jobs in turn; of each state's jobs only the newest is wanted.

    Two jobs never run at once, those of ``run_here`` included, so that no two hold hooks on the same model.
    """

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._turn = threading.RLock()
        self._waiting: list[Job] = []
        self._current: Job | None = None
        self._thread: threading.Thread | None = None

    def submit(self, work: Callable[[Job], None], state: JobState) -> Job:
        """Run ``work`` soon, and cancel what was running or waiting for the same state."""
        job = Job(work, state)
        with self._change:
            self._drop(state)
            ahead = [self._current, *self._waiting]
            state.waiting = any(other is not None and other.state is not state for other in ahead)
            self._waiting.append(job)
            state.running = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="workbench jobs", daemon=True)
                self._thread.start()
            self._change.notify()
        return job

    def run_here(self, work: Callable[[Job], None], state: JobState) -> None:
        """Run ``work`` in the calling thread, after cancelling the state's other jobs, and raise its error."""
        with self._change:
            self._drop(state)
        job = Job(work, state)
        with self._turn:
            job.run()
            state.running = False
        job.ended.set()
        job.join()

    def cancel(self, state: JobState) -> None:
        """Stop the state's jobs."""
        with self._change:
            self._drop(state)
            if self._current is None or self._current.state is not state:
                state.running = state.waiting = False

    def make_way(self) -> None:
        """Stop the job under way, so that the next begins."""
        with self._change:
            if self._current is not None:
                self._current.cancel.set()

    def _drop(self, state: JobState) -> None:
        if self._current is not None and self._current.state is state:
            self._current.cancel.set()
        for job in [job for job in self._waiting if job.state is state]:
            job.cancel.set()
            job.ended.set()
            self._waiting.remove(job)

    def _serve(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: bool(self._waiting))
                self._current = job = self._waiting.pop(0)
            with self._turn:
                job.run()
                with self._change:
                    self._current = None
                    job.state.running = any(other.state is job.state for other in self._waiting)
            job.ended.set()


WORKER = Worker()
"""The kernel's one worker."""
