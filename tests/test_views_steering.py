"""Jobs and the steering panel: cancelling, newest first, no message too many, and the truth of the three texts."""

import threading
import time

import pytest
import torch
from test_views import click, tell

from workbench.models import GeneratedToken, Site
from workbench.views import jobs
from workbench.views.jobs import Job, JobState, Worker, guarded
from workbench.views.steering import SteeringPanel, steering_panel

WAIT = 20.0


@pytest.fixture
def worker():
    return Worker()


class Gate:
    """Work that goes on step by step, as the test lets it."""

    def __init__(self):
        self.steps = threading.Semaphore(0)
        self.started = threading.Event()
        self.taken = 0

    def __call__(self, job: Job) -> None:
        self.started.set()
        while not job.cancel.is_set():
            assert self.steps.acquire(timeout=WAIT)
            if job.cancel.is_set():
                return
            self.taken += 1


# Jobs.


def test_the_newest_job_wins_and_the_middle_one_never_starts(worker):
    state = JobState()
    first, third, ran = Gate(), threading.Event(), []
    one = worker.submit(first, state)
    assert first.started.wait(WAIT)
    two = worker.submit(lambda job: ran.append(2), state)
    three = worker.submit(lambda job: third.set(), state)
    first.steps.release()
    assert one.join(WAIT)
    assert two.join(WAIT)
    assert three.join(WAIT)
    assert third.is_set()
    assert (one.cancel.is_set(), two.cancel.is_set(), three.cancel.is_set()) == (True, True, False)
    assert ran == []


def test_a_job_does_not_cancel_those_of_other_widgets(worker):
    ours, theirs = JobState(), JobState()
    gate, done = Gate(), threading.Event()
    job = worker.submit(gate, ours)
    assert gate.started.wait(WAIT)
    other = worker.submit(lambda job: done.set(), theirs)
    assert theirs.running
    assert not job.cancel.is_set()
    worker.cancel(ours)
    gate.steps.release()
    assert other.join(WAIT)
    assert done.is_set()


def test_two_jobs_never_run_at_once(worker):
    busy = threading.Lock()

    def alone(job: Job) -> None:
        assert busy.acquire(blocking=False)
        time.sleep(0.02)
        busy.release()

    background = [worker.submit(alone, JobState()) for _ in range(4)]
    for _ in range(4):
        worker.run_here(alone, JobState())
    assert all(job.join(WAIT) for job in background)


def test_cancelling_stops_within_one_step(worker):
    state, gate = JobState(), Gate()
    job = worker.submit(gate, state)
    for _ in range(3):
        gate.steps.release()
    while gate.taken < 3:
        time.sleep(0.001)
    worker.cancel(state)
    gate.steps.release()
    assert job.join(WAIT)
    assert gate.taken == 3


def test_an_error_is_shown_raised_by_join_and_forgotten_by_the_next(worker):
    state = JobState()

    def fail(job: Job) -> None:
        raise ValueError("boom.")

    with pytest.raises(ValueError, match="boom"):
        worker.submit(fail, state).join(WAIT)
    assert state.error == "boom."
    worker.submit(lambda job: None, state).join(WAIT)
    assert state.error == ""
    with pytest.raises(ValueError, match="boom"):
        worker.run_here(fail, state)
    assert not state.running


def test_jobs_run_without_gradients_and_leave_them_on_here(worker):
    seen = []
    worker.submit(lambda job: seen.append(torch.is_grad_enabled()), JobState()).join(WAIT)
    worker.run_here(lambda job: seen.append(torch.is_grad_enabled()), JobState())
    assert seen == [False, False]
    assert torch.is_grad_enabled()


def test_a_job_leaves_the_global_random_state_alone(tiny_model):
    panel = steering_panel(
        tiny_model, site=Site(1), direction=torch.ones(32), prompt="the cat", max_new_tokens=4, seed=3
    )
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    panel.run_sync()
    assert torch.equal(torch.rand(3), expected)


def test_updates_come_at_most_ten_times_a_second_and_the_last_is_not_lost(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: now[0])
    state, seen = JobState(), []
    state.observe(lambda change: seen.append(change.new), names="progress")

    def work(job: Job) -> None:
        for step in range(1, 101):
            now[0] += 0.01
            job.post(step / 100)

    Job(work, state).run()
    assert 9 <= len(seen) <= 11
    assert seen[-1] == 1.0


def test_a_guarded_handler_shows_its_error_and_raises_it_only_when_strict(monkeypatch):
    class Thing:
        error = ""

        @guarded
        def handler(self):
            return 1 / 0

    thing = Thing()
    with pytest.raises(ZeroDivisionError):
        thing.handler()
    monkeypatch.delenv("WORKBENCH_STRICT")
    thing.error = ""
    assert thing.handler() is None
    assert thing.error == "ZeroDivisionError: division by zero"


# The panel, with a writer that the test holds by the hand.


class Writing:
    """Words that depend on the vector, one per permission."""

    def __init__(self, free: bool = True):
        self.permits = threading.Semaphore(10_000 if free else 0)
        self.given = 0

    def __call__(self, prompt, vector, seed, cancel):
        if "qzx" in prompt:
            raise ValueError("'qzx' (word 1 of the text) is not in the vocabulary.")
        steered = vector is not None and bool(vector.abs().sum() > 0)
        return self.stream(["dragon" if steered else "cat", "Dragon" if seed == 1 else "dog"] * 4, cancel)

    def stream(self, words, cancel):
        for position, word in enumerate(words):
            while not self.permits.acquire(timeout=0.01):
                if cancel.is_set():
                    return
            if cancel.is_set():
                return
            self.given += 1
            yield GeneratedToken(position, f" {word}", position, -1.0)
        yield GeneratedToken(99, "", 8, -1.0)


def panel_of(writer=None, **options):
    options = {"prompt": "the", "targets": ["Dragon"], "max_new_tokens": 12, **options}
    return SteeringPanel(writer or Writing(), direction=torch.tensor([3.0, 4.0]), **options)


def settle(panel):
    assert panel.job.join(WAIT)


def test_run_sync_returns_the_texts_and_fills_the_panel():
    panel = panel_of()
    texts = panel.run_sync(2.0)
    assert texts == (" dragon dog" * 4, " cat dog" * 4, " dragon dog" * 4)
    assert panel.slider.value == panel.number.value == 2.0
    assert panel.job is None
    assert not panel.state.running
    assert panel.snapshot()["shares"] == {"Steered (+2)": 0.5, "Unsteered": 0.0, "Random direction (+2)": 0.5}
    assert "Unsteered: 0% target words (0 of 8 tokens)" in repr(panel)


def test_moving_the_slider_in_the_browser_starts_a_run_and_moves_the_number():
    panel = panel_of()
    tell(panel.slider, value=-1.5)
    settle(panel)
    assert panel.number.value == -1.5
    assert [column["title"] for column in panel.columns.shown["columns"]] == [
        "Steered (−1.5)",
        "Unsteered",
        "Random direction (−1.5)",
    ]
    tell(panel.number, value=0.5)
    settle(panel)
    assert panel.slider.value == 0.5
    assert panel.columns.shown["columns"][0]["title"] == "Steered (+0.5)"


def test_a_strength_beyond_the_slider_is_refused_in_words_and_starts_nothing():
    panel = panel_of()
    texts = panel.run_sync(1.0)
    tell(panel.number, value=5.0)
    assert panel.columns.error == "strength must lie in -2..2, the slider's range, got 5."
    assert panel.job is None
    assert panel.state.strength == 1.0
    assert panel.state.shown.columns[0].text == texts.steered
    click(panel.generate)
    assert panel.columns.error == "strength must lie in -2..2, the slider's range, got 5."
    assert panel.job is None
    tell(panel.number, value=1.5)
    settle(panel)
    assert panel.columns.error == ""


@pytest.mark.parametrize("seed", [2.5, -3, 2**31])
def test_a_seed_that_is_none_is_refused_and_not_rounded(seed):
    panel = panel_of()
    panel.run_sync(1.0)
    tell(panel.seed, value=seed)
    assert panel.columns.error == f"seed must be a whole number in 0..2147483647, got {seed:g}."
    assert panel.job is None
    assert panel.state.seed == 0
    tell(panel.seed, value=7)
    settle(panel)
    assert panel.state.seed == 7


def test_every_control_starts_exactly_one_run(monkeypatch):
    panel = panel_of()
    runs = []
    monkeypatch.setattr(panel, "run", lambda: runs.append(panel.state.strength))
    tell(panel.slider, value=0.3)
    tell(panel.number, value=0.4)
    tell(panel.prompt, value="a")
    tell(panel.seed, value=4)
    click(panel.generate)
    assert runs == [0.3, 0.4, 0.4, 0.4, 0.4]


def test_the_three_texts_grow_together():
    writing = Writing(free=False)
    panel = panel_of(writing)
    panel.run()
    for _ in range(6):
        writing.permits.release()
    while writing.given < 6:
        time.sleep(0.001)
    click(panel.cancel)
    settle(panel)
    assert [len(column.pieces) for column in panel.state.shown.columns] == [2, 2, 2]
    assert "Cancelled" in panel.columns.shown["status"]
    assert not panel.state.running
    assert panel.cancel.disabled


def test_cancelling_ends_within_one_token_and_a_new_value_takes_over():
    writing = Writing(free=False)
    panel = panel_of(writing)
    tell(panel.slider, value=0.1)
    first = panel.job
    writing.permits.release()
    while writing.given < 1:
        time.sleep(0.001)
    assert not panel.cancel.disabled
    tell(panel.slider, value=0.2)
    assert first.join(WAIT)
    assert writing.given == 1
    for _ in range(30):
        writing.permits.release()
    settle(panel)
    assert "+0.2" in panel.columns.shown["caption"]
    assert "Done" in panel.columns.shown["status"]


def test_a_bad_prompt_is_shown_and_the_next_good_one_clears_it():
    panel = panel_of()
    panel.run_sync(1.0)
    before = panel.columns.shown
    tell(panel.prompt, value="qzx")
    with pytest.raises(ValueError, match="vocabulary"):
        settle(panel)
    assert "not in the vocabulary" in panel.columns.error
    assert panel.columns.shown == before
    tell(panel.prompt, value="the")
    settle(panel)
    assert panel.columns.error == ""


def test_an_interrupt_leaves_the_panel_ready():
    def interrupted(prompt, vector, seed, cancel):
        yield GeneratedToken(0, " dragon", 0, -1.0)
        raise KeyboardInterrupt

    panel = panel_of(interrupted)
    with pytest.raises(KeyboardInterrupt):
        panel.run_sync(1.0)
    assert not panel.state.running
    assert panel.columns.error == "KeyboardInterrupt"
    assert panel.columns.shown["columns"][0]["pieces"] == [(" dragon", True)]


def test_streaming_sends_few_messages(monkeypatch):
    panel = panel_of()
    sent = []
    monkeypatch.setattr(panel.columns.comm, "send", lambda data=None, **rest: sent.append(data))
    began = time.monotonic()
    for strength in (0.5, 1.5):
        panel.run_sync(strength)
    assert len(sent) <= 2 * 3 + 10 * (time.monotonic() - began)


def test_without_targets_nothing_is_counted():
    panel = panel_of(targets=())
    panel.run_sync(1.0)
    assert panel.columns.shown["columns"][0]["share"] is None
    assert panel.columns.shown["status"] == "Done."


def test_targets_are_ids_or_words_without_case():
    by_id = panel_of(targets=[0, 1])
    by_id.run_sync(1.0)
    assert by_id.snapshot()["shares"]["Unsteered"] == 0.25
    by_word = panel_of(targets=["DRAGON "], seed=1)
    by_word.run_sync(1.0)
    assert by_word.snapshot()["shares"] == {"Steered (+1)": 1.0, "Unsteered": 0.5, "Random direction (+1)": 1.0}


def test_the_export_holds_the_finished_runs_of_these_settings(tmp_path):
    panel = panel_of()
    for strength in (2.0, -1.0, 0.0):
        panel.run_sync(strength)
    panel.export_html(tmp_path / "steering.html")
    recorded = panel.columns.export_state()["recorded"]
    assert [state["caption"] for state in recorded] == [f"Strength {s}, seed 0" for s in ("−1", "0", "+2")]
    assert "recorded" not in panel.columns.state()


@pytest.mark.usefixtures("as_user")
def test_the_panel_says_what_is_wrong(tiny_model):
    with pytest.raises(ValueError, match=r"strength must lie in -2\.\.2, the slider's range, got 3"):
        panel_of().run_sync(3.0)
    with pytest.raises(ValueError, match="low must be below high, got 1 and 1"):
        panel_of(low=1.0, high=1.0)
    with pytest.raises(ValueError, match="max_new_tokens must be 1 or more, got 0"):
        panel_of(max_new_tokens=0)
    with pytest.raises(TypeError, match="got the string 'dragon'; use a list"):
        panel_of(targets="dragon")
    for direction in (torch.zeros(32), torch.full((32,), float("nan"))):
        with pytest.raises(ValueError, match="direction must have a finite length above 0"):
            steering_panel(tiny_model, site=Site(1), direction=direction, prompt="the")
    with pytest.raises(ValueError, match=r"direction must have 32 numbers \(d_model\), got 31"):
        steering_panel(tiny_model, site=Site(1), direction=torch.ones(31), prompt="the")
    with pytest.raises(ValueError, match="unit must be a finite length above 0, got 0; for a feature that never fires"):
        on_model(tiny_model, unit=0.0)
    with pytest.raises(ValueError, match="layer"):
        on_model(tiny_model, site=Site(7))


# The panel on a model. It is random, so that its texts differ as soon as its logits do.


def on_model(model, **options):
    direction = torch.randn(32, generator=torch.Generator().manual_seed(7))
    options = {"site": Site(1), "prompt": "the cat", "unit": 6.0, "max_new_tokens": 16, **options}
    return steering_panel(model, direction=direction, **options)


def test_at_strength_0_all_three_texts_are_the_unsteered_one(tiny_model):
    told_apart = 0
    for seed in range(5):
        panel = on_model(tiny_model, seed=seed)
        quiet, loud = panel.run_sync(0.0), panel.run_sync(2.0)
        assert quiet.steered == quiet.unsteered == quiet.random == loud.unsteered
        told_apart += len(set(loud)) == 3
    assert told_apart >= 3  # a text may end at once


def test_a_run_in_the_background_writes_what_run_sync_writes(tiny_model):
    panel = on_model(tiny_model)
    here = panel.run_sync(1.5)
    before = panel.snapshot()
    panel.run_sync(-1.0)
    tell(panel.slider, value=1.5)
    again = on_model(tiny_model).run_sync(1.5)  # in this thread, as soon as the other has written
    settle(panel)
    assert panel.snapshot() == before
    assert again == here


def test_strength_1_adds_one_unit_whatever_the_length_of_the_direction(tiny_model):
    panel = on_model(tiny_model, unit=2.5)
    assert float(panel.comparison.direction.norm()) == pytest.approx(2.5)
    assert panel.comparison.place == "1.resid_post"


def test_a_word_outside_the_vocabulary_is_named_in_the_panel(tiny_model):
    panel = on_model(tiny_model)
    tell(panel.prompt, value="the unicorn")
    with pytest.raises(ValueError, match="unicorn"):
        settle(panel)
    assert "'unicorn' (word 2 of the text) is not in the vocabulary" in panel.columns.error
