"""What is told of a training while it runs: in a terminal, in a panel, to loggers."""

import io
import re
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from rich.console import Console
from test_training import SHORT, Interrupting, Mixtures, run_to_end, same, small
from test_views import click

from workbench.training import TrainConfig, progress, train, train_many
from workbench.training.loggers import tensorboard, wandb
from workbench.views.curves import blocks, curve
from workbench.views.training import POINTS, training_panel

# --- in a terminal -------------------------------------------------------------------------------------------


def test_a_plain_script_shows_a_bar_and_a_line_for_each_dictionary(monkeypatch, capsys):
    out = io.StringIO()
    monkeypatch.setattr(
        "workbench.training.bar.Console", lambda stderr: Console(file=out, force_terminal=True, width=120)
    )
    pair = {"narrow one": small(), "other": small(1)}
    reports = list(progress(train_many(pair, Mixtures(), SHORT)))
    assert len(reports) == 24
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).splitlines()[-4:]
    assert re.search(r"training +━+ 100% 24/24 steps · 0:00:00 left · [\d,]+ tokens/s · \d\.\d GiB", last[0])
    assert last[1].split() == ["loss", "fvu", "l0", "dead", "lr"]
    for line, name in zip(last[2:], pair, strict=True):
        step = reports[-1][name]
        values = [f"{step.loss:.3g}", f"{step.fvu:.3f}", f"{step.l0:.1f}", f"{step.dead:.1%}", f"{step.lr:.1e}"]
        assert line.split() == [*name.split(), *values]
    assert capsys.readouterr().out == ""


def test_leaving_a_bar_early_saves_as_leaving_the_loop_does(tmp_path, capsys):
    for step in progress(train(small(), Mixtures(), SHORT, checkpoint=tmp_path)):
        if step.step == 8:
            break
    assert train(small(), Mixtures(), SHORT, checkpoint=tmp_path).step == 8
    assert list(progress(train(small(), Mixtures(), SHORT, checkpoint=tmp_path)))[-1].step == 24
    assert " 100% 24/24 steps" in capsys.readouterr().err


def test_the_time_left_follows_from_the_speed():
    *_, last = [step for _, step in zip(range(6), train(small(), Mixtures(size=512), SHORT), strict=False)]
    assert last.seconds_left == pytest.approx(18 * 512 / last.tokens_per_second)


# --- to loggers ----------------------------------------------------------------------------------------------


def test_tensorboard_and_wandb_hear_every_number(monkeypatch):
    told, flushed = [], []
    writer = SimpleNamespace(add_scalar=lambda *args: told.append(args), flush=lambda: flushed.append(len(told)))
    board = SimpleNamespace(SummaryWriter=lambda directory: told.append(directory) or writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    cloud = SimpleNamespace(log=lambda values, step: told.append((values, step)))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **init: told.append(init) or cloud))
    _, second, last = train(small(), Mixtures(), TrainConfig(steps=3), logger=tensorboard("runs", every=2))
    heard = [(f"dictionary/{name}", value, n.step) for n in (second, last) for name, value in n.numbers().items()]
    assert told == ["runs", *heard]
    assert flushed[-1] == len(told)
    parts = {"loss", "fvu", "l0", "dead", "outliers", "reconstruction", "auxk", "lr", "tokens_per_second"}
    assert last.numbers().keys() == parts
    told.clear()
    config = TrainConfig(steps=1)
    (steps,) = train_many({"a": small(), "b": small(1)}, Mixtures(), config, logger=wandb(every=1, project="p"))
    assert told == [
        {"project": "p"},
        *(({f"{name}/{key}": value for key, value in step.numbers().items()}, 1) for name, step in steps.items()),
    ]


@pytest.mark.parametrize(
    ("logger", "module", "package"),
    [(lambda: tensorboard("x"), "torch.utils.tensorboard", "tensorboard"), (wandb, "wandb", "wandb")],
)
def test_a_logger_without_its_package_says_how_to_get_it(monkeypatch, logger, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"needs the package {package}.*pip install {package}; or give train a log"):
        logger()


# --- in a panel ----------------------------------------------------------------------------------------------


class Gated(Mixtures):
    """Mixtures that come when they are let through, the first as many as a dictionary is initialised on."""

    def __init__(self):
        super().__init__(size=2048)
        self.gate, self.asked = threading.Semaphore(0), 0

    def __next__(self):
        self.asked += 1
        assert self.gate.acquire(timeout=30)
        return super().__next__()


@pytest.fixture
def panel(tmp_path):
    return training_panel(train(small(), Gated(), SHORT, checkpoint=tmp_path))


@pytest.fixture(scope="module")
def whole():
    dictionary = small()
    list(train(dictionary, Mixtures(), SHORT))
    return dictionary


def let(panel, steps):
    panel.training._feed._batches.gate.release(steps)


def await_step(panel, step):
    """Wait until this step is under way."""
    while panel.training._feed._batches.asked < step:
        time.sleep(0.01)


def status(panel):
    return panel.curves.seen["status"]


def test_a_panel_runs_in_the_background_pauses_and_resumes(tmp_path, panel):
    assert (status(panel), panel.toggle.description) == ("Not started", "Start")
    click(panel.toggle)
    first = panel.job
    assert (status(panel), panel.toggle.description) == ("Running", "Pause")
    let(panel, 5)
    await_step(panel, 6)
    click(panel.toggle)  # the step under way is finished
    let(panel, 1)
    assert first.join(30.0)
    assert status(panel) == f"Paused after step 6, saved in '{tmp_path}'"
    assert train(small(), Mixtures(), SHORT, checkpoint=tmp_path).step == 6
    assert panel.toggle.description == "Resume"
    let(panel, 18)
    click(panel.toggle)
    assert panel.job.join(30.0)
    assert status(panel) == f"Finished, saved in '{tmp_path}'"
    assert panel.toggle.disabled
    assert panel.cancel.disabled
    list(train(whole := small(), Mixtures(size=2048), SHORT))
    assert same(panel.training.dictionary, whole)


def test_a_training_that_waits_says_so_and_may_have_the_other_paused(tmp_path, panel):
    click(panel.toggle)
    await_step(panel, 1)
    second = training_panel(train(small(), Mixtures(), SHORT))
    click(second.toggle)
    assert (status(second), second.toggle.description) == ("Waiting until another panel is done", "Pause the other")
    click(second.toggle)
    let(panel, 1)
    assert panel.job.join(30.0)
    assert status(panel) == f"Paused after step 1, saved in '{tmp_path}'"
    assert second.job.join(30.0)
    assert status(second) == "Finished"


def test_a_training_resumed_while_it_still_pauses_waits_for_nobody_else(panel):
    click(panel.toggle)
    await_step(panel, 1)
    panel.pause()
    panel.run()
    assert not panel.state.waiting
    assert status(panel) == "Running"
    panel.pause()
    let(panel, 2)
    assert panel.job.join(30.0)


def test_a_training_that_waits_can_be_cancelled(panel):
    click(panel.toggle)
    await_step(panel, 1)
    second = training_panel(train(small(), Mixtures(), SHORT))
    click(second.toggle)
    click(second.cancel)
    assert (status(second), second.toggle.disabled) == ("Cancelled after step 0", True)
    panel.pause()
    let(panel, 1)
    assert panel.job.join(30.0)


@pytest.mark.parametrize("running", [True, False])
def test_a_cancelled_training_is_saved_and_over(tmp_path, panel, running):
    click(panel.toggle)
    let(panel, 3)
    await_step(panel, 4)
    if not running:
        panel.pause()
        let(panel, 1)
        panel.job.join(30.0)
    click(panel.cancel)
    if running:
        let(panel, 1)
        panel.job.join(30.0)
    assert status(panel) == f"Cancelled after step 4, saved in '{tmp_path}'"
    assert train(small(), Mixtures(), SHORT, checkpoint=tmp_path).step == 4
    assert panel.toggle.disabled
    with pytest.raises(ValueError, match="is closed"):
        panel.training.resume()


def test_the_interrupt_button_saves_what_runs_in_the_cell(tmp_path, whole):
    panel = training_panel(train(small(), Interrupting(), SHORT, checkpoint=tmp_path))
    with pytest.raises(KeyboardInterrupt, match=r"stopped after step 13 of 24\. All is saved"):
        panel.run_sync()
    assert status(panel) == f"Paused after step 13, saved in '{tmp_path}'"
    assert same(run_to_end(tmp_path), whole)


def test_what_goes_wrong_is_said_in_the_panel():
    panel = training_panel(train(small(), [next(Mixtures())], SHORT))
    panel.run().ended.wait(30)
    assert panel.error.startswith("The batches ended after step 1 of 24")
    assert status(panel) == "Paused after step 1"


def test_a_panel_shows_what_the_steps_measured(monkeypatch):
    monkeypatch.setattr("workbench.views.training.INTERVAL", 0)
    heard = []
    training = train_many({"a": small(), "b": small(1)}, Mixtures(), TrainConfig(steps=120), logger=heard.append)
    panel = training_panel(training)
    panel.run_sync()
    seen = panel.curves.seen
    assert (seen["count"], seen["share"], seen["status"]) == ("Step 120 of 120", 1.0, "Finished")
    for row, step in zip(seen["rows"], heard[-2:], strict=True):
        assert row["name"] == step.name
        values = [f"{step.loss:.3g}", f"{step.fvu:.3f}", f"{step.l0:.1f}", f"{step.dead:.1%}", f"{step.lr:.1e}"]
        assert [reading["value"] for reading in row["readings"]] == values
        for reading in row["readings"]:
            assert POINTS <= len(reading["points"]) <= POINTS + 1
            assert all(0 <= x <= 1 and 0 <= y <= 1 for x, y in reading["points"])
    assert [reading["label"] for reading in seen["common"]] == ["Tokens a second", "Memory", "Time left"]
    assert panel.snapshot()["measured"]["b"]["fvu"] == pytest.approx(heard[-1].fvu, rel=1e-3)
    assert f"FVU {heard[-1].fvu:.3f}" in repr(panel)


def test_curves_keep_their_shape():
    assert curve([(0.1, 2.0), (0.2, 4.0), (0.3, 1.0)]) == [(0.1, 0.5), (0.2, 1.0), (0.3, 0.25)]
    assert curve([(0.1, 1.0), (0.2, 0.1), (0.3, 0.01)], log=True) == [(0.1, 1.0), (0.2, 0.5), (0.3, 0.0)]
    assert curve([(0.1, 0.0), (0.2, float("nan"))]) == [(0.1, 0.0)]
    assert curve([]) == []
    assert blocks([(0.0, 1.0), (0.5, 1.0), (0.51, 0.0)]) == "█▁"
