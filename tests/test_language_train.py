"""Training the shipped kind of model: killed anywhere, it comes out the same."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise
from pkgutil import resolve_name

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from workbench.language.exam import examine, planted
from workbench.language.language import Language
from workbench.language.train import Recipe, batches, build_model, lr_at, main
from workbench.models import load_model

SMALL = ["--steps", "120", "--tokens", "512", "--layers", "1", "--width", "32", "--every", "10", "--exam", "20"]


def start(directory, *options):
    command = [sys.executable, "-m", "workbench.language.train", str(directory), "--device", "cpu", *SMALL, *options]
    environment = {"OMP_NUM_THREADS": "1", "PATH": "", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def saved(directory):
    file = directory / "unfinished.safetensors"
    return file.stat().st_mtime_ns if file.exists() else 0


def wait_for_checkpoint(directory, run):
    before = saved(directory)
    while saved(directory) == before:
        assert run.poll() is None, run.communicate()[1]
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been_killed(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(whole).wait() == 0
    for how in (signal.SIGKILL, signal.SIGINT):
        run = start(broken)
        wait_for_checkpoint(broken, run)
        run.send_signal(how)
        said = run.communicate()[1]
        if run.returncode == 0:
            break  # it was faster than the signal; what it wrote is compared all the same
        told = (
            rf"Stopped; step \d+ is kept in '{broken}'. Go on with:  python -m workbench.language.train {broken} --dev"
        )
        assert how == signal.SIGKILL or re.search(told, said.splitlines()[-1])
    run = start(broken)
    assert run.wait() == 0, run.communicate()[1]
    one, other = (load_file(d / "model.safetensors") for d in (whole, broken))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(tensor.dtype == torch.float16 for tensor in one.values() if tensor.is_floating_point())
    card = json.loads((whole / "card.json").read_text())
    assert card["recipe"]["steps"] == 120
    assert card["exam"]["kl_nats_per_token"] > 0
    assert not (whole / "unfinished.safetensors").exists()
    tokens = torch.arange(3, 20)[None]
    logits = {step: load_model(f"{whole}@{step}")(tokens) for step in (0, 50)}
    assert not torch.allclose(logits[0], logits[50], atol=0.05)
    torch.manual_seed(0)
    untrained = build_model(Recipe(layers=1, width=32)).half().float().eval()
    assert torch.allclose(logits[0], untrained(input_ids=tokens).logits, atol=1e-4)
    with pytest.raises(ValueError, match=r"has no checkpoint of step '60'; it has 0, 50\."):
        load_model(f"{whole}@60")


FEW = ["--device", "cpu", "--steps", "4", "--tokens", "512", "--layers", "1", "--width", "32", "--exam", "2"]


@pytest.fixture(scope="module", autouse=True)
def short_exam():
    """An exam of seconds, but for runs in a process of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.language.train.planted", partial(planted, n=4))
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run that nothing stops has written."""
    directory = tmp_path_factory.mktemp("whole")
    main([str(directory), *FEW])
    return directory


def stopped(arguments, capsys):
    """Return the last line of a command that stops, and how it ended."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in arguments])
    if isinstance(stop.value.code, str):
        return stop.value.code, 1
    return capsys.readouterr().err.splitlines()[-1], stop.value.code


def press(*_, **__):
    """Do as Ctrl-C does."""
    signal.raise_signal(signal.SIGINT)


def whole_and_then(after):
    def change(save):
        return lambda *given: (save(*given), after())

    return change


@pytest.mark.parametrize(
    ("where", "change", "words"),
    [
        ("Run.save", whole_and_then(press), "step 4 is kept in"),
        ("os.replace", lambda replace: lambda *names: (press(), replace(*names)), "step 1 is kept in"),
        ("examine", lambda _: press, "step 4 is kept in"),
        ("build_tokenizer", lambda _: press, "step 4 is kept in"),
        ("Run.resume", lambda _: press, "nothing is kept yet"),
    ],
)
def test_ctrl_c_anywhere_names_what_is_kept_and_how_to_go_on(
    tmp_path, monkeypatch, capsys, whole, where, change, words
):
    broken = tmp_path / "the broken"
    with monkeypatch.context() as patch:
        name = f"workbench.language.train.{where}"
        patch.setattr(name, change(resolve_name(name)))
        said, code = stopped([broken, *FEW], capsys)
    told = re.fullmatch(rf"Stopped; {words}.*\. Go on with:  python -m workbench\.language\.train (.+)", said)
    assert told, said
    assert code == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    main(shlex.split(told[1]))
    one, other = (load_file(d / "model.safetensors") for d in (whole, broken))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not list(broken.rglob("*.partial"))
    assert not list(broken.glob("unfinished*"))


def test_what_was_stopped_in_its_exam_takes_no_step_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("workbench.language.train.examine", press)
    assert "step 4 is kept" in stopped([tmp_path, *FEW], capsys)[0]
    monkeypatch.setattr("workbench.language.train.batches", lambda *_: pytest.fail("a batch was drawn") or (yield))
    assert "step 4 is kept" in stopped([tmp_path, *FEW], capsys)[0]


@pytest.mark.parametrize("where", ["save_file", "write"])
def test_a_full_disk_is_a_sentence_that_says_how_to_go_on(tmp_path, monkeypatch, capsys, where):
    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(f"workbench.language.train.{where}", full)
    said, code = stopped([tmp_path, *FEW], capsys)
    left = "nothing is kept yet" if where == "save_file" else f"step 4 is kept in '{tmp_path}'"
    command = f"python -m workbench.language.train {tmp_path} --device cpu"
    assert said.startswith(
        f"python -m workbench.language.train: No space left on device; {left}. Go on with:  {command}"
    )
    assert code == 1


def test_a_file_in_the_place_of_the_directory_is_a_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    said, code = stopped([tmp_path / "file", *FEW], capsys)
    assert f"train: Not a directory ('{tmp_path}/file" in said or f"train: File exists ('{tmp_path}/file" in said
    assert code == 1
    assert (tmp_path / "file").read_text() == "mine"


def cut(file):
    file.write_bytes(file.read_bytes()[:-100])


def without_metadata(file):
    save_file(load_file(file), file)


def of_another_size(file):
    with safe_open(file, "pt") as held:
        about = held.metadata()
    weights = load_file(file)
    save_file(weights | {"weight.0": weights["weight.0"][1:].contiguous()}, file, about)


@pytest.mark.parametrize("damage", [cut, without_metadata, of_another_size])
def test_a_broken_checkpoint_is_a_sentence(tmp_path, monkeypatch, capsys, damage):
    monkeypatch.setattr("workbench.language.train.examine", press)
    stopped([tmp_path, *FEW], capsys)
    file = tmp_path / "unfinished.safetensors"
    damage(file)
    before = file.read_bytes()
    said, _ = stopped([tmp_path, *FEW], capsys)
    assert re.search(r"unfinished\.safetensors' is broken or of another version .*remove that file to begin anew", said)
    assert file.read_bytes() == before


def test_another_recipe_goes_on_neither_with_an_unfinished_run_nor_over_a_finished_model(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr("workbench.language.train.examine", press)
        stopped([tmp_path, *FEW], capsys)
    said, _ = stopped([tmp_path, *FEW, "--lr", "0.1"], capsys)
    assert "holds an unfinished run of another recipe" in said
    assert "give the same options to go on with it, or another directory" in said
    main([str(tmp_path), *FEW])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for options in ([], ["--lr", "0.1"]):
        said, _ = stopped([tmp_path, *FEW, *options], capsys)
        assert said.endswith("holds a finished model; to train anew, give another directory or remove that one.")
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_batches_continue_where_they_were_left():
    recipe = Recipe(tokens=512)
    all_of_them = batches(recipe, 0)
    first = [next(all_of_them) for _ in range(12)]
    rest = batches(recipe, 7)
    assert all(torch.equal(a, next(rest)) for a in first[7:])
    assert all(batch.numel() <= 512 for batch in first)


def test_the_learning_rate_rises_and_falls():
    recipe = Recipe(steps=1000)
    rates = [lr_at(step, recipe) for step in range(1000)]
    assert max(rates) == pytest.approx(recipe.lr)
    assert rates.index(max(rates)) == 99
    assert rates[-1] < recipe.lr * 1e-4
    assert all(a >= b for a, b in pairwise(rates[100:]))


def test_a_perfect_model_passes_the_exam_and_a_uniform_one_fails_as_expected():
    language = Language(0)
    documents = language.documents(30, split="test", seed=4)

    def perfect(ids):
        rows = []
        for row in ids:
            length = int((row != 0).sum())
            exact = language.next_token(row[:length]).clamp_min(1e-30).log()
            rows.append(torch.nn.functional.pad(exact, (0, 0, 0, len(row) - length)))
        return torch.stack(rows)

    best = examine(perfect, language, documents)
    assert best.kl == pytest.approx(0, abs=1e-9)
    assert best.grammatical_mass == pytest.approx(1)
    assert (best.slots["accuracy"][best.slots["certain"]] == 1).all()
    assert (best.slots["ceiling"][best.slots["certain"]] == 1).all()
    assert (best.slots["ceiling"][~best.slots["certain"]] < 1).all()
    assert best.slots["mass"].min() == pytest.approx(1)
    shown = planted(perfect, language, n=40)
    assert shown["model"].tolist() == pytest.approx(shown["exact"].tolist())
    assert len(shown) == 4
    size = len(language.vocabulary)
    worst = examine(lambda ids: torch.zeros(*ids.shape, size), language, documents)
    assert worst.kl == pytest.approx(torch.tensor(size).log().item() - worst.entropy)
