"""Training: planted directions are found, nothing is lost however it ends, and bad input is named."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import tokens_of
from safetensors import SafetensorError
from torch import Tensor

from workbench.activations import ActivationStore
from workbench.dictionaries import BatchTopK, Dictionary, TopK, fidelity, files, load_dictionary, save
from workbench.models import Site
from workbench.training import TrainConfig, Training, train

D, TRUE, ACTIVE = 32, 64, 3


class Mixtures:
    """Endless batches x = H V + centre of known unit directions V, with a position that can be saved."""

    def __init__(self, seed: int = 0, size: int = 512, scale: float = 1.0):
        generator = torch.Generator().manual_seed(seed)
        self.directions = F.normalize(torch.randn(TRUE, D, generator=generator), dim=-1)
        self.centre = 2 * torch.randn(D, generator=generator)
        self.seed, self.size, self.scale, self.drawn = seed, size, scale, 0

    def __iter__(self):
        return self

    def __next__(self) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * self.seed + self.drawn)
        self.drawn += 1
        strengths = 0.5 + torch.rand(self.size, TRUE, generator=generator)
        active = torch.rand(self.size, TRUE, generator=generator) < ACTIVE / TRUE
        return self.scale * ((strengths * active) @ self.directions + self.centre)

    def state_dict(self):
        return {"drawn": self.drawn, "nested": [{"name": "mixtures"}]}

    def load_state_dict(self, state):
        assert state["nested"] == [{"name": "mixtures"}]
        self.drawn = state["drawn"]


def stateless(**options):
    mixtures = Mixtures(**options)
    while True:
        yield next(mixtures)


def small(seed: int = 0, **options) -> TopK:
    return TopK(D, 2 * TRUE, k=4, seed=seed, **options)


# Dead after a few steps, so that the auxiliary loss takes part in everything below.
SHORT = TrainConfig(steps=24, lr=3e-3, dead_tokens=1500, save_every=5)


def run_to_end(checkpoint: Path) -> TopK:
    dictionary = small()
    list(train(dictionary, Mixtures(), SHORT, checkpoint=checkpoint))
    return dictionary


@pytest.fixture(scope="module")
def uninterrupted() -> TopK:
    dictionary = small()
    steps = list(train(dictionary, Mixtures(), SHORT))
    assert max(step.dead for step in steps) > 0.05
    return dictionary


def same(a: Dictionary, b: Dictionary) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# --- what it is for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "scale"), [(0, 1.0), (1, 300.0), (2, 0.01), (3, 1.0)])
def test_the_planted_directions_are_found(seed, scale):
    batches, dictionary = Mixtures(seed, size=1024, scale=scale), small(seed)
    list(train(dictionary, batches, TrainConfig(steps=400, lr=3e-3, dead_tokens=100_000)))
    best = (batches.directions @ dictionary.W_dec.T).max(dim=1).values
    assert (best > 0.9).float().mean() >= 0.9
    # Inputs with more than k active directions cannot be rebuilt; what is left stays well under half.
    assert fidelity(dictionary, next(batches)).fvu < 0.2


def test_dead_features_are_revived():
    def survivors(dead_tokens: int) -> float:
        batches, dictionary = Mixtures(size=1024), small()
        dictionary.initialise(next(batches))
        with torch.no_grad():
            dictionary.b_enc[:96] = -8.0  # silent on every input: three in four are dead
        list(train(dictionary, batches, TrainConfig(steps=300, lr=1e-2, dead_tokens=dead_tokens)))
        return 1 - fidelity(dictionary, (next(batches) for _ in range(20))).dead

    assert survivors(dead_tokens=10**9) < 0.3
    assert survivors(dead_tokens=5000) > 0.9


def test_a_transcoder_learns_a_map_between_two_sites():
    read, write = Site(0, "mlp_in"), Site(0, "mlp_out")
    batches = Mixtures(size=1024)
    A = torch.randn(D, 16, generator=torch.Generator().manual_seed(3))
    dictionary = small(d_out=16, sites_in=read, sites_out=write)
    pairs = ({read: x, write: x @ A} for x in batches)
    steps = list(train(dictionary, pairs, TrainConfig(steps=400, lr=3e-3)))
    assert steps[-1].fvu < 0.35 < steps[0].fvu < 1


def test_a_step_reports_what_its_batch_shows():
    batches = [next(Mixtures(seed)) for seed in (0, 1)]
    dictionary = small()
    dictionary.initialise(batches[0])
    heard = []
    training = train(dictionary, batches, TrainConfig(steps=2, dead_tokens=512), logger=heard.append)
    expected = fidelity(dictionary, batches[0])
    first = next(training)
    assert first.fvu == pytest.approx(expected.fvu, rel=1e-4)
    assert first.l0 == expected.l0
    assert first.loss == pytest.approx(sum(float(first.measured[part]) for part in ("reconstruction", "auxk")))
    assert first.dead == 0
    expected = fidelity(dictionary, batches[1])
    silent = 1 - dictionary.encode(batches[0]).fired.float().mean()
    second = next(training)
    assert second.fvu == pytest.approx(expected.fvu, rel=1e-4)
    assert second.dead == pytest.approx(silent.item(), abs=0.05)  # the weights moved one step in between
    assert (second.step, second.tokens) == (2, 1024)
    assert heard == [first, second]
    assert str(second).startswith("step 2: fvu ")
    assert dictionary.provenance["training"]["tokens"] == 1024
    with pytest.raises(StopIteration):
        next(training)


def test_the_learning_rate_rises_stays_and_falls():
    config = TrainConfig(steps=100, warmup=0.1, decay=0.2, lr=1.0)
    rates = [config.lr_at(step, 2**14) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert set(rates[10:80]) == {1.0}
    assert rates[80:] == pytest.approx([1 - 0.05 * i for i in range(20)])
    assert TrainConfig(steps=1, warmup=0.0, decay=0.0).lr_at(0, 2**12) == pytest.approx(4e-4)


def test_training_works_where_gradients_are_switched_off():
    with torch.no_grad():
        assert len(list(train(small(), Mixtures(), TrainConfig(steps=2)))) == 2


# --- nothing is lost -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [Mixtures, stateless])
@pytest.mark.parametrize("leave_at", [1, 7, 10, 23])
def test_a_resumed_training_ends_in_the_same_weights(tmp_path, uninterrupted, batches, leave_at):
    for step in train(small(), batches(), SHORT, checkpoint=tmp_path):
        if step.step == leave_at:
            break
    resumed = small(seed=6)
    steps = [step.step for step in train(resumed, batches(), SHORT, checkpoint=tmp_path)]
    assert steps == list(range(leave_at + 1, 25))
    assert same(resumed, uninterrupted)


def test_a_random_state_used_by_the_batches_is_restored(tmp_path):
    def noise():
        while True:
            yield torch.randn(64, D)

    def trained(last: int, **options) -> TopK:
        dictionary = small()
        torch.manual_seed(1)
        for step in train(dictionary, noise(), SHORT, **options):
            if step.step == last:
                break
        return dictionary

    trained(9, checkpoint=tmp_path)
    assert same(trained(24, checkpoint=tmp_path), trained(24))


def test_leaving_the_loop_saves_and_says_so(tmp_path, caplog):
    for step in train(small(), Mixtures(), SHORT, checkpoint=tmp_path):
        if step.step == 8:
            break
    expected = f"Training stopped after step 8 of 24. All is saved in '{tmp_path}': call train again with the same"
    assert expected in caplog.text
    assert train(small(), Mixtures(), SHORT, checkpoint=tmp_path).step == 8


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_exception_in_the_loop_body_saves(tmp_path, caplog, error):
    training = train(small(), Mixtures(), SHORT, checkpoint=tmp_path)
    with pytest.raises(error, match="in the body"):
        run_until(training, 8, error("in the body"))
    assert "Training stopped after step 8 of 24. All is saved" in caplog.text
    assert train(small(), Mixtures(), SHORT, checkpoint=tmp_path).step == 8
    assert next(training).step == 9  # and the one at hand can go on


def run_until(training: Training, at: int, error: BaseException):
    for step in training:
        if step.step == at:
            raise error


def test_an_exception_in_the_logger_saves(tmp_path):
    def logger(step):
        if step.step == 8:
            raise RuntimeError("no more room in the log")

    with pytest.raises(RuntimeError, match="no more room"):
        list(train(small(), Mixtures(), SHORT, checkpoint=tmp_path, logger=logger))
    assert train(small(), Mixtures(), SHORT, checkpoint=tmp_path).step == 8


def test_a_full_disk_stops_the_training_and_leaves_the_last_checkpoint(tmp_path, monkeypatch, uninterrupted):
    def full(tensors, file):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    training = train(small(), Mixtures(), SHORT, checkpoint=tmp_path)
    for _ in range(8):
        next(training)
    with monkeypatch.context() as patch:
        patch.setattr(files, "save_file", full)
        with pytest.raises(OSError, match=r"checkpoint\.json' could not be written .* before stays readable"):
            list(training)
    assert train(small(), Mixtures(), SHORT, checkpoint=tmp_path).step == 5
    assert same(run_to_end(tmp_path), uninterrupted)


class Interrupting(Mixtures):
    """Mixtures that press Ctrl-C while batch ``at`` is drawn, so in the middle of a step."""

    times, at = 1, 12

    def __next__(self):
        if self.drawn == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)
        return super().__next__()


@pytest.mark.parametrize("take", [list, lambda training: [next(training) for _ in range(24)]])
def test_ctrl_c_inside_a_step_waits_until_the_step_is_whole(tmp_path, uninterrupted, take):
    before = signal.getsignal(signal.SIGINT)
    training = train(small(), Interrupting(), SHORT, checkpoint=tmp_path)
    with pytest.raises(KeyboardInterrupt, match=r"stopped after step 13 of 24\. All is saved in '.*': call train"):
        take(training)
    assert signal.getsignal(signal.SIGINT) is before
    assert same(run_to_end(tmp_path), uninterrupted)


def test_ctrl_c_twice_stops_at_once_and_spoils_nothing_on_disk(tmp_path, uninterrupted):
    batches = Interrupting()
    batches.times = 2
    training = train(small(), batches, SHORT, checkpoint=tmp_path)
    with pytest.raises(KeyboardInterrupt, match=r"step 12 of 24, inside the next one.*still holds step 10"):
        list(training)
    with pytest.raises(ValueError, match="inside the next one, which cannot be saved"):
        next(training)
    with pytest.raises(ValueError, match="inside the next one, which cannot be saved"):
        training.save()
    assert same(run_to_end(tmp_path), uninterrupted)


def test_ctrl_c_waits_for_what_torch_loads_with_its_first_optimiser(monkeypatch):
    made, adam = [], torch.optim.Adam

    def slow(*args, **options):
        os.kill(os.getpid(), signal.SIGINT)
        made.append(adam(*args, **options))
        return made[0]

    monkeypatch.setattr(torch.optim, "Adam", slow)
    with pytest.raises(KeyboardInterrupt):
        train(small(), Mixtures(), SHORT)
    assert made


def test_ctrl_c_without_a_directory_says_how_to_go_on(uninterrupted):
    dictionary = small()
    training = train(dictionary, Interrupting(), SHORT)
    with pytest.raises(KeyboardInterrupt, match=r"step 13 of 24\. Loop over it again to go on; a checkpoint"):
        list(training)
    assert [step.step for step in training] == list(range(14, 25))
    assert same(dictionary, uninterrupted)


def test_pause_ends_the_loop_from_any_thread_and_resume_goes_on(tmp_path, uninterrupted):
    dictionary = small()
    training = train(dictionary, Mixtures(), SHORT, checkpoint=tmp_path)
    done = []

    def work():
        for step in training:
            done.append(step.step)
            if step.step == 6:
                other = threading.Thread(target=training.pause)
                other.start()
                other.join()

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert done == [1, 2, 3, 4, 5, 6]
    assert train(small(), Mixtures(), SHORT, checkpoint=tmp_path).step == 6
    assert list(training) == []
    assert [step.step for step in training.resume()] == list(range(7, 25))
    assert training.finished
    assert same(dictionary, uninterrupted)


def test_a_closed_training_is_saved_and_over(tmp_path):
    training = train(small(), Mixtures(), SHORT, checkpoint=tmp_path)
    for step in training:
        if step.step == 3:
            training.close()
    assert training.step == 3
    assert training.dictionary.W_enc.grad is None
    assert train(small(), Mixtures(), SHORT, checkpoint=tmp_path).step == 3
    with pytest.raises(ValueError, match="closed; call train again with the same checkpoint directory"):
        training.resume()


def test_a_finished_training_takes_no_step_and_brings_its_weights(tmp_path, uninterrupted, caplog):
    run_to_end(tmp_path)
    again = small(seed=3)
    assert list(train(again, Mixtures(), SHORT, checkpoint=tmp_path)) == []
    assert f"'{tmp_path}' holds this training, finished; its weights are loaded." in caplog.text
    assert same(again, uninterrupted)


def test_a_checkpoint_is_safetensors_and_json(tmp_path):
    run_to_end(tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]
    assert json.loads((tmp_path / "checkpoint.json").read_text())["dictionaries"]["dictionary"]["config"]["steps"] == 24


# --- whose activations -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stores(loaded) -> dict[str, ActivationStore]:
    """The same tokens in two models."""
    return {name: ActivationStore.collect(loaded[name], tokens_of(8, 20), [Site(1)]) for name in ("neox", "llama")}


def test_a_dictionary_knows_the_model_whose_activations_it_was_trained_on(tmp_path, loaded, stores):
    config = TrainConfig(steps=2)

    def trained(name: str, dictionary: TopK, **options) -> TopK:
        list(train(dictionary, stores[name].batches([Site(1)], 64, seed=0), config, **options))
        return dictionary

    save(trained("neox", small(sites_in=Site(1)), checkpoint=tmp_path / "unfinished"), tmp_path)
    again = trained("neox", small(sites_in=Site(1)), checkpoint=tmp_path / "unfinished")  # finished: no step is taken
    for dictionary in (load_dictionary(tmp_path), again):
        assert dictionary.provenance["training"]["steps"] == 2
        dictionary.check(loaded["neox"])
        with pytest.raises(ValueError, match="This dictionary was trained on another model, with fingerprint"):
            dictionary.check(loaded["llama"])
    trained("neox", again)
    words = "was trained on a model with fingerprint .*, and these batches come from another, .*; harvest from that"
    with pytest.raises(ValueError, match=words):
        trained("llama", again)
    with pytest.raises(ValueError, match=r"position is of batches with fingerprint .*, these have"):
        trained("llama", small(sites_in=Site(1)), checkpoint=tmp_path / "unfinished")


def test_batches_that_do_not_say_whose_they_are_change_nothing(stores):
    dictionary = small(sites_in=Site(1))
    batch = next(stores["neox"].batches([Site(1)], 64, seed=0))
    list(train(dictionary, [batch], TrainConfig(steps=1)))
    assert "model" not in dictionary.provenance
    list(train(dictionary, stores["neox"].batches([Site(1)], 64, seed=0), TrainConfig(steps=1)))
    known = dictionary.provenance["model"]
    list(train(dictionary, [batch], TrainConfig(steps=1)))
    assert dictionary.provenance["model"] == known


# --- bad input -----------------------------------------------------------------------------------------------


def test_a_nan_in_a_batch_stops_before_the_weights_are_touched(tmp_path):
    class Spoiled(Mixtures):
        def __next__(self):
            batch = super().__next__()
            if self.drawn == 13:
                batch[[3, 4], 0] = torch.nan
            return batch

    dictionary = small()
    with pytest.raises(ValueError, match=r"loss of step 13 is nan: 2 of its 512 activations.*still holds step 10"):
        list(train(dictionary, Spoiled(), SHORT, checkpoint=tmp_path))
    assert all(parameter.isfinite().all() for parameter in dictionary.parameters())
    assert train(small(), Mixtures(), SHORT, checkpoint=tmp_path).step == 10


def test_divergence_keeps_the_last_good_checkpoint(tmp_path):
    dictionary = small()

    def overflow(step):
        if step.step == 9:
            dictionary.b_dec.data[0] = torch.inf

    with pytest.raises(ValueError, match=r"loss of step 10 is (inf|nan): the learning rate, 0.003, is likely too high"):
        list(train(dictionary, Mixtures(), SHORT, checkpoint=tmp_path, logger=overflow))
    assert train(small(), Mixtures(), SHORT, checkpoint=tmp_path).step == 5


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    dictionary = small()
    training = train(dictionary, Mixtures(), SHORT, checkpoint=tmp_path)
    next(training)
    dictionary.W_enc.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"weights after step 1 are not finite.*still holds step 0"):
        training.save()


def test_batches_that_end_early_are_explained_and_the_work_kept(tmp_path):
    few = [next(Mixtures(seed)) for seed in range(7)]
    with pytest.raises(ValueError, match="batches ended after step 7 of 24; give batches that go round"):
        list(train(small(), few, SHORT, checkpoint=tmp_path))
    training = train(small(), few, SHORT, checkpoint=tmp_path)
    assert training.step == 7
    with pytest.raises(ValueError, match="batches ended after step 7 of 24"):
        next(training)


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    run_to_end(tmp_path)
    with pytest.raises(ValueError, match=r"whose dictionary has options=\{'k': 4\}; this one has options=\{'k': 5\}"):
        train(TopK(D, 2 * TRUE, k=5), Mixtures(), SHORT, checkpoint=tmp_path)
    for other, words in (
        (BatchTopK(D, 2 * TRUE, k=4), "architecture='TopK'; this one has architecture='BatchTopK'"),
        (TopK(D, 3 * TRUE, k=4), "n_features=128; this one has n_features=192"),
        (TopK(D + 1, 2 * TRUE, k=4), "d_in=32, d_out=32; this one has d_in=33, d_out=33"),
    ):
        with pytest.raises(ValueError, match=rf"whose dictionary has {words}. Give the same to go on"):
            train(other, Mixtures(), SHORT, checkpoint=tmp_path)
    config = TrainConfig(steps=24, lr=0.01, dead_tokens=1500, save_every=9)
    with pytest.raises(ValueError, match=r"whose config has lr=0.003; this one has lr=0.01. Give the same to go on"):
        train(small(), Mixtures(), config, checkpoint=tmp_path)


def test_a_spoilt_checkpoint_is_named_and_left_as_it_is(tmp_path):
    run_to_end(tmp_path)
    manifest, weights = tmp_path / "checkpoint.json", next(tmp_path.glob("*.safetensors"))
    told, whole = manifest.read_text(), weights.read_bytes()
    for path, content, words in (
        (weights, whole[:-9], "is truncated, corrupt or swapped"),
        (weights, whole[:-1] + bytes([whole[-1] ^ 1]), "is truncated, corrupt or swapped"),
        (manifest, told[:99].encode(), "is not a manifest of workbench"),
        (manifest, told.replace('"format": 1', '"format": 99').encode(), "has format 99, this workbench reads 1"),
    ):
        kept = path.read_bytes()
        path.write_bytes(content)
        dictionary = small(seed=3)
        with pytest.raises(ValueError, match=words):
            train(dictionary, Mixtures(), SHORT, checkpoint=tmp_path)
        assert same(dictionary, small(seed=3))
        assert path.read_bytes() == content
        path.write_bytes(kept)
    weights.unlink()
    with pytest.raises(ValueError, match="which is not beside it; copy both files"):
        train(small(), Mixtures(), SHORT, checkpoint=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.json"]


def test_a_position_that_json_cannot_hold_shows_at_the_first_step(tmp_path):
    batches = Mixtures()
    batches.state_dict = lambda: {"rng": torch.zeros(2)}
    with pytest.raises(TypeError, match="state_dict of the batches must be what JSON can hold, but: Object of type Te"):
        next(train(small(), batches, SHORT, checkpoint=tmp_path))


def test_saving_needs_a_directory():
    with pytest.raises(ValueError, match="nowhere to save to; give train a checkpoint directory"):
        train(small(), Mixtures(), SHORT).save()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 5, "save_every": 0}, "save_every must be at least 1, got 0"),
        ({"steps": 5, "lr": 0.0}, "lr must be positive, or None for the default, got 0.0"),
        ({"steps": 5, "warmup": 0.9, "decay": 0.2}, "together at most 1, got 0.9 and 0.2"),
    ],
)
def test_a_config_that_cannot_be_is_explained(options, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig(**options)


def test_a_dictionary_is_initialised_on_more_than_a_small_batch(tmp_path):
    """On the first 2,048 activations, in whole batches, each of which is still learnt from."""
    for batches in (Mixtures, lambda: iter([next(stream) for stream in [Mixtures()] for _ in range(24)])):
        first, again = small(), small()
        (step, *_) = train(first, batches(), SHORT)
        stream = Mixtures()
        again.initialise(torch.cat([next(stream) for _ in range(4)]))
        list(train(again, Mixtures(), SHORT))
        assert same(first, again)
        assert step.tokens == 512


def test_batches_taken_for_the_beginning_come_again_where_a_training_goes_on(tmp_path):
    """Also where batches draw on torch's own generator, which is then ahead of what was learnt from."""

    def drawing():
        while True:
            yield torch.randn(256, D) @ torch.randn(D, D, generator=torch.Generator().manual_seed(1))

    torch.manual_seed(3)
    list(train(whole := small(), drawing(), SHORT))
    torch.manual_seed(3)
    for step in train(small(), drawing(), SHORT, checkpoint=tmp_path):
        if step.step == 2:
            break
    torch.manual_seed(3)
    list(train(again := small(), drawing(), SHORT, checkpoint=tmp_path))
    assert same(whole, again)


def test_a_training_that_ran_away_says_so(caplog):
    list(train(small(), Mixtures(), TrainConfig(steps=10, lr=30.0)))
    assert "'dictionary' ended with an FVU of" in caplog.text
    assert "the learning rate, 30, is likely too high" in caplog.text
    caplog.clear()
    list(train(small(), Mixtures(), SHORT))
    assert caplog.text == ""
