"""Many dictionaries on one stream, each as if alone; and what the loop does for each of them unasked."""

import inspect
import logging
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from test_dictionaries_architectures import CASES
from test_training import TRUE, D, Mixtures, same, small
from torch import Tensor

from workbench.dictionaries import BatchTopK, Dictionary, FeatureChoice, JumpReLU, TopK, fidelity, files
from workbench.models import Site
from workbench.training import TrainConfig, train, train_many
from workbench.training.feed import Feed
from workbench.training.learner import COUNT_EVERY, Learner

SEED = random.randrange(2**20)
A, B, C = Site(0), Site(1), Site(2, "mlp_out")


@pytest.fixture(autouse=True)
def _told():
    logging.warning("SEED = %s", SEED)  # shown with a test that fails


class Stream:
    """Endless batches of three sites of two widths, with a position."""

    def __init__(self, seed: int = SEED, size: int = 256):
        self.drawn, self.seed, self.size = 0, seed, size
        self.W = torch.randn(D, 20, generator=torch.Generator().manual_seed(seed))

    def __iter__(self):
        return self

    def __next__(self) -> Mapping[Site, Tensor]:
        mixtures = Mixtures(self.seed, self.size)
        mixtures.drawn = self.drawn
        self.drawn += 1
        x = next(mixtures)
        return {A: x, B: 3 * x.roll(1, dims=1) + 1, C: x @ self.W}

    def state_dict(self):
        return {"drawn": self.drawn}

    def load_state_dict(self, state):
        self.drawn = state["drawn"]


def several() -> dict[str, Dictionary]:
    """One of each kind that remembers something of its own, at several sites and widths."""
    return {
        "narrow": TopK(D, 2 * TRUE, k=4, sites_in=A, seed=SEED),
        "wide": TopK(D, 4 * TRUE, k=8, sites_in=A, seed=SEED + 1),
        "batch": BatchTopK(D, 2 * TRUE, k=4, sites_in=B, seed=SEED),
        "choice": FeatureChoice(D, 2 * TRUE, k=4, zipf=0.5, sites_in=B, seed=SEED),
        "jump": JumpReLU(20, TRUE, l0=4, sites_in=C, seed=SEED),
        "transcoder": TopK(D, 2 * TRUE, k=4, d_out=20, sites_in=A, sites_out=C, seed=SEED),
    }


# Dead after a few steps, so that the auxiliary loss takes part.
CONFIG = TrainConfig(steps=24, lr=3e-3, dead_tokens=1500, save_every=2)


# --- one stream ----------------------------------------------------------------------------------------------


def test_together_they_end_in_the_weights_that_each_has_alone(tmp_path):
    together, alone = several(), several()
    config = TrainConfig(steps=24, dead_tokens=1500)  # the learning rate by width
    training = train_many(together, Stream(), config, checkpoint=tmp_path)
    reports = list(training)
    assert [report.keys() for report in reports] == [together.keys()] * 24
    assert reports[0]["wide"].lr == pytest.approx(reports[0]["narrow"].lr / 2**0.5)
    for name, dictionary in alone.items():
        steps = list(train(dictionary, Stream(), config))
        assert same(dictionary, together[name]), name
        for quantity, value in steps[-1].measured.items():
            assert torch.equal(reports[-1][name].measured[quantity], value), (name, quantity)
        assert together[name].provenance["training"] == dictionary.provenance["training"]


def test_each_may_have_its_own_config_and_a_list_is_named_by_number():
    rates = (1e-3, 1e-2)
    pair = [small(SEED), small(SEED)]
    configs = {str(i): TrainConfig(steps=5, lr=lr) for i, lr in enumerate(rates)}
    heard = []
    *_, last = train_many(pair, Mixtures(SEED), configs, logger=heard.append)
    assert [step.name for step in heard] == ["0", "1"] * 5
    assert list(last) == ["0", "1"]
    for dictionary, lr in zip(pair, rates, strict=True):
        alone = small(SEED)
        list(train(alone, Mixtures(SEED), TrainConfig(steps=5, lr=lr)))
        assert same(alone, dictionary)


def test_only_the_sites_that_are_needed_are_asked_for():
    asked = set()

    class Asked(dict):
        def __getitem__(self, site):
            asked.add(site)
            return super().__getitem__(site)

    dictionaries = {name: several()[name] for name in ("narrow", "transcoder")}
    list(train_many(dictionaries, (Asked(batch) for batch in Stream()), TrainConfig(steps=3)))
    assert asked == {A, C}


@pytest.mark.parametrize("leave_at", [1, 10, 23])
def test_one_checkpoint_holds_all(tmp_path, leave_at):
    whole, stopped, resumed = several(), several(), several()
    list(train_many(whole, Stream(), CONFIG))
    for report in train_many(stopped, Stream(), CONFIG, checkpoint=tmp_path):
        if report["narrow"].step == leave_at:
            break
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]
    training = train_many(resumed, Stream(), CONFIG, checkpoint=tmp_path)
    assert training.step == leave_at
    list(training)
    for name, dictionary in whole.items():
        assert same(dictionary, resumed[name]), name


def test_what_cannot_be_trained_together_is_explained(tmp_path):
    config, two = TrainConfig(steps=2), {"a": small(1), "b": small(2)}
    with pytest.raises(ValueError, match="at least one dictionary, got none"):
        train_many({}, Mixtures(), config)
    with pytest.raises(TypeError, match="takes several dictionaries, by name or in a list, and this is one; call tra"):
        inspect.unwrap(train_many)(two["a"], Mixtures(), config)  # below the type check that only tests have
    with pytest.raises(TypeError, match=r"one after another, got object; of an ActivationStore give store\.batches"):
        inspect.unwrap(Feed.__init__)(Feed.__new__(Feed), object(), (), torch.device("cpu"))
    with pytest.raises(ValueError, match="the same dictionary twice"):
        train_many([two["a"], two["a"]], Mixtures(), config)
    with pytest.raises(ValueError, match="configs are 'a', the dictionaries 'a', 'b'"):
        train_many(two, Mixtures(), {"a": config})
    with pytest.raises(ValueError, match="have steps and save_every in common"):
        train_many(two, Mixtures(), {"a": config, "b": TrainConfig(steps=3)})
    with pytest.raises(ValueError, match=r"lie on one device, got cpu, meta"):
        train_many({"a": small(), "b": small().to("meta")}, Mixtures(), config)
    list(train_many(two, Mixtures(), config, checkpoint=tmp_path))
    with pytest.raises(ValueError, match="holds a training of 'a', 'b'; this one is of 'dictionary'"):
        train(small(), Mixtures(), config, checkpoint=tmp_path)


# --- killed at any moment ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def processes():
    """A server that has imported all this forks one process after another, each of which then begins at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_training_many"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # all that the server looks at before it imports
        started = context.Process(target=int)
        started.start()
        started.join()
    return context


def run(directory: Path, seed: int, moment: float) -> None:
    """Train on, and be killed after so many steps, a fraction being that of the time that a step takes."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)  # else a process begins with a state of its own, and that is part of a checkpoint
    global SEED
    SEED = seed
    training, taken, seconds, began = train_many(several(), Stream(seed), CONFIG, checkpoint=directory), 0, 0.1, 0.0
    while True:
        if taken == int(moment):
            killer = threading.Timer(moment % 1 * seconds, os.kill, (os.getpid(), signal.SIGKILL))
            killer.daemon = True
            killer.start()
        began = time.monotonic()
        if next(training, None) is None:
            return
        taken, seconds = taken + 1, time.monotonic() - began


def test_killed_at_twenty_random_moments_it_ends_in_the_same_weights(tmp_path, processes):
    def killed(directory: Path, moment: float) -> bool:
        process = processes.Process(target=run, args=(directory, SEED, moment))
        process.start()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        return process.exitcode != 0

    assert not killed(tmp_path / "whole", 99.0)
    whole = files.read(tmp_path / "whole", "checkpoint")
    kills, rounds, kept, writing = 0, 0, set(), 0
    while kills < 20:
        directory = tmp_path / f"{rounds}"
        while killed(directory, random.uniform(0, 6)):
            kills += 1
            if (directory / "checkpoint.json").exists():
                kept.add(files.read(directory, "checkpoint")[0]["step"])  # whole, whenever it was
            writing += len([*directory.glob("*.safetensors"), *directory.glob(".*")]) > 1
        manifest, tensors = files.read(directory, "checkpoint")
        assert [key for key, tensor in tensors.items() if not torch.equal(tensor, whole[1][key])] == []
        assert manifest == whole[0]  # which holds the hash of all tensors
        rounds += 1
    logging.warning("%s kills in %s rounds, %s of them in a save; it went on from %s", kills, rounds, writing, kept)
    assert len(kept) > 3


def run_and_die(directory: Path, calls: int) -> None:
    """Train, and be killed before the given one of all calls that write, move or remove a file."""
    torch.set_num_threads(1)
    done = 0

    def counted(call, *args, **options):
        nonlocal done
        done += 1
        if done == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **options)

    for place, name in ((files, "save_file"), (os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "write_text")):
        call = getattr(place, name)
        # A function and no partial, so that a method still binds its path.
        setattr(place, name, lambda *args, call=call, **options: counted(call, *args, **options))
    list(train(small(), Mixtures(), CONFIG, checkpoint=directory))


def test_killed_in_any_part_of_a_save_there_is_a_whole_checkpoint(tmp_path, processes):
    steps = []
    for calls in range(8, 18):  # all of the second save
        process = processes.Process(target=run_and_die, args=(tmp_path / f"{calls}", calls))
        process.start()
        process.join()
        assert process.exitcode == -9
        steps.append(train(small(), Mixtures(), CONFIG, checkpoint=tmp_path / f"{calls}").step)
    assert steps == sorted(steps)
    assert set(steps) == {0, 2}


# --- activations that stand out ------------------------------------------------------------------------------


class Sinks(Mixtures):
    """Mixtures in which some rows are a hundred times as long, all in one direction."""

    def __next__(self) -> Tensor:
        x = super().__next__()
        generator = torch.Generator().manual_seed(self.drawn)
        x[torch.rand(len(x), generator=generator) < 0.02] = 1000 * self.directions[0]
        return x


def test_attention_sinks_are_left_out_and_counted():
    left, scale = {}, {}
    for outliers in (10.0, None):
        batches, dictionary = Sinks(SEED), small(SEED)
        config = TrainConfig(steps=150, lr=3e-3, outliers=outliers)
        shares = [step.outliers for step in train(dictionary, batches, config)]
        assert sum(shares) / 150 == pytest.approx(0.02 if outliers else 0, abs=0.002)
        ordinary = Mixtures(SEED)
        left[outliers], scale[outliers] = fidelity(dictionary, next(ordinary)).fvu, dictionary.scale_out
    assert left[10.0] < 0.5 * left[None]
    assert scale[10.0] > 3 * scale[None]  # the unit of length is that of ordinary rows


def test_no_row_left_out_is_learnt_from_and_none_is_left_out_of_ordinary_ones():
    ordinary, spoilt = small(SEED), small(SEED)
    batches = [next(Mixtures(SEED + i, size=2048)) for i in range(20)]  # each as many as begin
    list(train(ordinary, batches, TrainConfig(steps=20, lr=3e-3)))
    again = [batch.clone() for batch in batches]
    for seed, batch in enumerate(again):
        far = torch.rand(len(batch), generator=torch.Generator().manual_seed(seed)) < 0.1
        # The rows that take their places, in order, stand in the batch without outliers too.
        batch[far] = 1e4 * torch.randn(int(far.sum()), D, generator=torch.Generator().manual_seed(SEED))
        batches[seed] = torch.where(far[:, None], batch[~far].repeat(2, 1)[far.cumsum(0) - 1], batch)
    list(train(ordinary := small(SEED), batches, TrainConfig(steps=20, lr=3e-3)))
    list(train(spoilt, again, TrainConfig(steps=20, lr=3e-3)))
    assert same(ordinary, spoilt)


def test_an_outlier_at_any_site_is_left_out_of_a_transcoder():
    dictionary, batch = several()["transcoder"], dict(next(Stream()))
    batch[C] = batch[C].clone()
    batch[C][:5] *= 1000
    (step,) = train(dictionary, [batch], TrainConfig(steps=1))
    assert step.outliers == pytest.approx(5 / 256)


def test_sites_that_are_mostly_silent_lose_nothing():
    x = next(Mixtures(SEED))
    x[: len(x) // 2 + 1] = 0
    (step,) = train(small(SEED), [x], TrainConfig(steps=1))
    assert step.outliers == 0


# --- devices -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_a_step_asks_the_device_nothing(name):
    """Tensors on "meta" have no values: whatever waits for one raises. The code is that of a GPU."""
    dictionary, batch = CASES[name].make(seed=SEED), CASES[name].rows(SEED, 512, draw=1)
    dictionary.initialise(batch)
    batch = batch.to("meta") if isinstance(batch, Tensor) else {site: x.to("meta") for site, x in batch.items()}
    learner = Learner(name, dictionary.to("meta"), TrainConfig(steps=100))
    learner._adam = torch.optim.Adam(dictionary.parameters())  # the fused one knows real devices only
    learner._dead = torch.zeros(20, dtype=torch.long, device="meta")
    for step in range(1, COUNT_EVERY):
        _, measured = learner.learn(batch, step)
    assert all(value.is_meta for value in measured.values())
    with pytest.raises(NotImplementedError, match="nonzero"):  # so the test can fail
        learner.learn(batch, COUNT_EVERY)


@pytest.mark.parametrize("name", CASES)
def test_half_precision_learns_as_well(name):
    case, found = CASES[name], {}
    for precision in ("float32", "bf16"):
        dictionary = case.make(seed=SEED)
        config = TrainConfig(steps=60, lr=case.lr, precision=precision)
        list(train(dictionary, case.batches(SEED, 512, draw=1), config))
        assert all(parameter.dtype == torch.float32 for parameter in dictionary.parameters())
        found[precision] = fidelity(dictionary, case.rows(SEED, 512, draw=2)).fvu
    assert found["bf16"] < 1.1 * found["float32"] + 0.01


def test_precision_is_set_for_a_step_and_put_back():
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    list(train(small(), Mixtures(), TrainConfig(steps=2, precision="float32")))
    assert matmul.fp32_precision == before


# --- when to save, and what stops it -------------------------------------------------------------------------


def test_checkpoints_can_be_by_the_clock(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("workbench.training.loop.time.monotonic", lambda: now[0])
    config, kept = TrainConfig(steps=10, save_every=timedelta(minutes=2)), []
    training = train(small(), Mixtures(), config, checkpoint=tmp_path)
    for _ in range(9):
        now[0] += 50.0  # seconds for a step
        next(training)
        kept.append(files.read(tmp_path, "checkpoint")[0]["step"])
    assert kept == [0, 0, 0, 4, 4, 4, 7, 7, 7]
    again = train(small(), Mixtures(), TrainConfig(steps=10, save_every=3), checkpoint=tmp_path)
    assert again.step == 7  # when to save is nothing that the weights depend on


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), "the allocator of the CPU"])
def test_out_of_memory_names_the_step_what_is_kept_and_what_to_try(tmp_path, monkeypatch, error):
    dictionary = small()
    training = train(dictionary, Mixtures(), TrainConfig(steps=10, save_every=2), checkpoint=tmp_path)
    for _ in range(3):
        next(training)

    def greedy(*args, **options):
        if isinstance(error, Exception):
            raise error
        return torch.empty(2**60)

    with monkeypatch.context() as patch:
        patch.setattr(dictionary, "loss", greedy)
        with pytest.raises(MemoryError, match=r"Step 4 needs more memory.*smaller batches.*still holds step 2\."):
            next(training)
    assert train(small(), Mixtures(), TrainConfig(steps=10), checkpoint=tmp_path).step == 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_activations_of_any_precision_are_trained_on_in_that_of_the_dictionary(dtype):
    x = next(Mixtures()).to(dtype)
    dictionaries = [small(), small()]
    for dictionary, batch in zip(dictionaries, (x, x.float()), strict=True):
        list(train(dictionary, [batch] * 3, TrainConfig(steps=3)))
    assert same(*dictionaries)


def test_batches_that_cannot_be_trained_on_are_explained(as_user):
    def step(batch, **options) -> None:
        next(train(small(**options), [batch], TrainConfig(steps=1)))

    x = next(Mixtures())
    for batch, kind, words in (
        (x[:, :9], ValueError, r"takes activations of width 32 here, got shape \(512, 9\)"),
        (x.long(), TypeError, "floating-point numbers, got torch.int64"),
        (x.numpy(), TypeError, "A batch is a tensor of activations or a mapping .*, got ndarray"),
        ([x], TypeError, r"got list; of a DataLoader that gives lists, pass \(x for \(x,\) in loader\)"),
        (x[:0], ValueError, "batch of step 1 holds no activations"),
        (torch.zeros(512, D), ValueError, "do not vary gives no unit of length"),
        (torch.full((512, D), 3.3), ValueError, "do not vary gives no unit of length"),
        (x.clone().fill_diagonal_(torch.inf), ValueError, "32 of 512 activations hold NaN or infinity"),
    ):
        with pytest.raises(kind, match=words):
            step(batch)
    for one in (x, {A: x}):
        with pytest.raises(TypeError, match=r"one after another, and this is one; give itertools\.repeat"):
            train(small(), one, TrainConfig(steps=1))
    with pytest.raises(ValueError, match=r"The batch lacks '2.mlp_out'; it holds '0.resid_post'. Record that site too"):
        step({A: x}, sites_in=C)
