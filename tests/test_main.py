"""The commands, as a newcomer types them."""

import importlib.metadata
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
import torch
from conftest import BOS, WORDS, tokens_of
from rich.progress import Progress
from safetensors import SafetensorError

import workbench.__main__
from workbench.__main__ import main
from workbench.activations import ActivationStore
from workbench.dictionaries import TopK, fidelity, load_dictionary, save, splice_kl
from workbench.language import build_tokenizer
from workbench.language.train import Recipe, build_model
from workbench.models import Site, fingerprint, load_model, tokenize


def code_of(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return stop.value.code


def test_doctor_finds_everything_here(capsys):
    assert code_of("doctor") == 0
    said = capsys.readouterr().out
    assert "shipped model     loads and answers" in said
    assert re.search(r"shipped features  in \d+ dictionaries of this model, tiny/", said)
    assert "workbench lab" in said.splitlines()[-1]


@pytest.fixture(scope="session")
def small_parts(tmp_path_factory):
    """A folder as the shipped one: a small model of the language, untrained, and two dictionaries for it."""
    folder = tmp_path_factory.mktemp("parts")
    build_model(Recipe(layers=1, width=32)).half().save_pretrained(folder / "tiny")
    build_tokenizer().save_pretrained(folder / "tiny")
    model = fingerprint(load_model(folder / "tiny", device="cpu"))
    for stream in ("mlp_out", "resid_post"):
        dictionary = TopK(32, 64, k=4, sites_in=Site(0, stream))
        dictionary.initialise(torch.randn(100, 32))
        dictionary.provenance = {"model": model}
        save(dictionary, folder / "tiny" / "dictionaries" / f"0.{stream}")
    return folder


@pytest.fixture
def parts(small_parts, tmp_path, monkeypatch):
    """A copy of it to break, in the place of the shipped one."""
    folder = shutil.copytree(small_parts, tmp_path / "pretrained")
    for module in ("models.loading", "dictionaries.storage"):
        monkeypatch.setattr(f"workbench.{module}.PRETRAINED", folder)
    return folder


def test_doctor_is_content_with_a_model_and_its_dictionaries(parts, capsys):
    assert code_of("doctor") == 0
    said = capsys.readouterr().out
    assert "shipped model     loads and answers" in said
    assert "shipped features  in 2 dictionaries of this model, tiny/0.mlp_out to tiny/0.resid_post" in said


def overwrite(name, size):
    """Put other bytes, small numbers if read as weights, at the end of a file."""

    def damage(folder):
        (file,) = folder.glob(name)
        whole = file.read_bytes()
        assert len(whole) > size
        file.write_bytes(whole[:-size] + b"\x11" * size)

    return damage


def take_another_model_s(folder):
    file = folder / "tiny" / "dictionaries" / "0.resid_post" / "dictionary.json"
    card = json.loads(file.read_text())
    card["provenance"]["model"] = "0" * 16
    file.write_text(json.dumps(card))


def rename_a_word(folder):
    file = folder / "tiny" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    words = tokenizer["model"]["vocab"]
    words["harbour"] = words.pop("harbor")
    file.write_text(json.dumps(tokenizer))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            overwrite("tiny/model.safetensors", 40_000),
            "the model is not the one that the dictionary tiny/0.mlp_out was",
        ),
        (overwrite("tiny/model.safetensors", 2), "is not the one that the dictionary tiny/0.mlp_out was trained on"),
        (take_another_model_s, "is not the one that the dictionary tiny/0.resid_post was trained on"),
        (overwrite("tiny/dictionaries/0.mlp_out/*.safetensors", 2), "is truncated, corrupt or swapped"),
        (overwrite("tiny/dictionaries/0.resid_post/*.safetensors", 2), "is truncated, corrupt or swapped"),
        (lambda folder: shutil.rmtree(folder / "tiny" / "dictionaries"), "'tiny' is not a directory"),
        (lambda folder: (folder / "tiny" / "config.json").unlink(), "has no config.json"),
        (rename_a_word, "the model's vocabulary is not the language's, they differ at 'harbor'"),
    ],
)
def test_doctor_says_what_to_do_where_what_is_shipped_is_broken(parts, capsys, damage, words):
    damage(parts)
    assert code_of("doctor") == 1
    said = capsys.readouterr().out
    assert "what is shipped is broken: " in said
    assert words in said
    assert "pip install --force-reinstall" in said
    assert "All is well" not in said


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ("2.9.1", 'torch is 2.9.1, workbench needs <2.14,>=2.10: run  python -m pip install "torch<2.14,>=2.10"'),
        ("3.0.0", "torch is 3.0.0, workbench needs"),
        (None, "torch is missing, workbench needs"),
        ("2.11.0+cpu", None),
    ],
)
def test_doctor_says_what_to_do_where_a_package_is_missing_or_of_a_wrong_version(
    parts, capsys, monkeypatch, found, words
):
    installed = importlib.metadata.version

    def version(name):
        if name != "torch":
            return installed(name)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert code_of("doctor") == (0 if words is None else 1)
    said = capsys.readouterr().out
    assert f"torch             {found or 'missing'}" in said
    assert ("torch is" not in said) if words is None else (words in said)


def test_doctor_says_what_to_do_where_nothing_was_installed(capsys, monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert code_of("doctor") == 1
    assert capsys.readouterr().out.endswith(
        "workbench is missing: run  python -m pip install -e .  in the repository\n"
    )


@pytest.fixture
def called(monkeypatch):
    """The commands that would have been run."""
    commands = []
    monkeypatch.setattr("subprocess.call", lambda command: commands.append(command) or 0)
    return commands


def test_an_empty_folder_gets_the_notebooks_and_keeps_them(tmp_path, called):
    assert code_of("lab", str(tmp_path), "--port=9999") == 0
    assert (tmp_path / "00_tour.ipynb").exists()
    assert f"--ServerApp.root_dir={tmp_path}" in called[0]
    assert called[0][-1] == "--port=9999"
    (tmp_path / "00_tour.ipynb").write_text("mine")
    assert code_of("lab", str(tmp_path)) == 0
    assert (tmp_path / "00_tour.ipynb").read_text() == "mine"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder as a clone of the repository is."""
    folder = tmp_path / "clone"
    (folder / "notebooks" / "images").mkdir(parents=True)
    (folder / "notebooks" / ".ipynb_checkpoints").mkdir()
    (folder / "notebooks" / "00_tour.ipynb").write_text("tour")
    (folder / "notebooks" / "01_more.ipynb").write_text("more")
    (folder / "notebooks" / "images" / "tour.png").write_bytes(b"picture")
    monkeypatch.setattr(workbench.__main__, "__file__", str(folder / "workbench" / "__main__.py"))
    return folder


def held(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("[!.]*") if path.is_file()}


def test_a_checkout_is_worked_on_in_copies_beside_it(checkout, called, capsys):
    before = held(checkout)
    assert code_of("lab") == 0
    copies = checkout / ".notebooks"
    assert f"--ServerApp.root_dir={copies}" in called[0]
    assert f"The notebooks are now in {copies}" in capsys.readouterr().out
    assert held(copies) == {"00_tour.ipynb": "tour", "01_more.ipynb": "more", "images/tour.png": "picture"}
    assert sorted(path.name for path in copies.iterdir()) == [
        ".shipped.json",
        "00_tour.ipynb",
        "01_more.ipynb",
        "images",
    ]
    (copies / "Untitled.ipynb").write_text("mine")
    assert code_of("lab") == 0
    assert held(copies) == held(checkout / "notebooks") | {"Untitled.ipynb": "mine"}
    assert {name: text for name, text in held(checkout).items() if ".notebooks" not in name} == before
    assert capsys.readouterr().out == ""


def test_copies_follow_what_is_shipped_but_never_over_a_change(checkout, called, capsys):
    tour, more = (checkout / "notebooks" / name for name in ("00_tour.ipynb", "01_more.ipynb"))
    copies = checkout / ".notebooks"
    assert code_of("lab") == 0
    (copies / "01_more.ipynb").write_text("my more")
    tour.write_text("new tour")
    (checkout / "notebooks" / "images" / "tour.png").write_text("new picture")
    (checkout / "notebooks" / "02_last.ipynb").write_text("last")
    capsys.readouterr()
    assert code_of("lab") == 0
    assert capsys.readouterr().out == ""
    whole = {"00_tour.ipynb": "new tour", "images/tour.png": "new picture", "02_last.ipynb": "last"}
    assert held(copies) == whole | {"01_more.ipynb": "my more"}

    more.write_text("new more")
    for _ in range(2):
        assert code_of("lab") == 0
        assert capsys.readouterr().out == (
            f"You have changed 01_more.ipynb in {copies}, and so has a new version of workbench: yours stays; to get "
            "the new one too, rename yours and call workbench lab again.\n"
        )
        assert held(copies) == whole | {"01_more.ipynb": "my more"}
    (copies / "01_more.ipynb").rename(copies / "01_mine.ipynb")
    assert code_of("lab") == 0
    assert held(copies) == whole | {"01_mine.ipynb": "my more", "01_more.ipynb": "new more"}
    assert capsys.readouterr().out == ""
    more.write_text("newest more")
    assert code_of("lab") == 0
    assert held(copies) == whole | {"01_mine.ipynb": "my more", "01_more.ipynb": "newest more"}


def test_a_folder_that_is_named_is_worked_on_in_place(checkout, called, monkeypatch):
    monkeypatch.chdir(checkout)
    before = held(checkout)
    assert code_of("lab", "notebooks") == 0
    assert f"--ServerApp.root_dir={checkout / 'notebooks'}" in called[0]
    assert held(checkout) == before
    assert code_of("lab", "mine") == 0
    (checkout / "notebooks" / "00_tour.ipynb").write_text("new tour")
    assert code_of("lab", "mine") == 0
    assert (checkout / "mine" / "00_tour.ipynb").read_text() == "tour"


def test_what_follows_the_folder_goes_to_jupyterlab(tmp_path, checkout, monkeypatch, called):
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    assert code_of("lab", "--no-browser", "--port", "8951") == 0
    assert called[0][-3:] == ["--no-browser", "--port", "8951"]
    assert f"--ServerApp.root_dir={checkout / '.notebooks'}" in called[0]
    assert list(tmp_path.iterdir()) == [checkout]
    assert code_of("lab", "mine", "--port", "8951", "deep.ipynb") == 0
    assert f"--ServerApp.root_dir={tmp_path / 'mine'}" in called[1]
    assert called[1][-3:] == ["--port", "8951", "deep.ipynb"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_check_takes_no_option_of_jupyterlab(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert code_of("lab", "--check", "--port", "8951") == 2
    assert "unrecognized arguments: --port" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_installation_without_a_checkout_copies_the_notebooks_that_came_with_it(tmp_path, monkeypatch, called):
    shared = tmp_path / "env" / "share" / "workbench" / "notebooks"
    (shared / "images").mkdir(parents=True)
    (shared / "00_tour.ipynb").write_text("as shipped")
    (shared / "images" / "tour.png").write_bytes(b"picture")
    monkeypatch.setattr(workbench.__main__, "__file__", str(tmp_path / "env" / "lib" / "workbench" / "__main__.py"))
    monkeypatch.setattr("sys.prefix", str(tmp_path / "env"))
    monkeypatch.chdir(tmp_path)
    for arguments, folder in ((["mine", "--port=1"], "mine"), (["--port=1"], "notebooks")):
        assert code_of("lab", *arguments) == 0
        assert f"--ServerApp.root_dir={tmp_path / folder}" in called[-1]
        assert (tmp_path / folder / "00_tour.ipynb").read_text() == "as shipped"
        assert (tmp_path / folder / "images" / "tour.png").exists()
    shutil.rmtree(shared)
    with pytest.raises(SystemExit, match="'other' holds no notebooks and none came with this installation"):
        main(["lab", "other"])


def check(folder, captured, *cells):
    """Run ``lab --check`` on a shipped tour of these cells, and return its code and what it printed."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, folder / "notebooks" / "00_tour.ipynb")
    before = held(folder)
    code = code_of("lab", "--check")
    assert held(folder) == before, "a check writes nothing"
    out, err = captured.readouterr()
    assert err == ""
    return code, out


def test_a_check_runs_the_shipped_tour_and_says_what_it_found(checkout, capsys):
    (checkout / ".notebooks").mkdir()
    (checkout / ".notebooks" / "00_tour.ipynb").write_text("mine, and no notebook")
    code, said = check(checkout, capsys, "x = 41 + 1\nprint('found', x)", "x", "assert x == 42\nprint('so')")
    assert code == 0
    assert re.fullmatch(r"found 42\nso\n\n00_tour\.ipynb ran from top to bottom in \d+ s; its claims hold\.\n", said)


def test_a_check_of_another_model_does_not_say_that_claims_hold(checkout, capsys):
    code, said = check(checkout, capsys, "print('not asserted for this model')")
    assert code == 0
    assert said.endswith("s; its claims are asserted for the shipped model only.\n")
    assert "hold" not in said


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("assert 1 > 2, 'a claim'", "a claim"),
        ("import os; os._exit(1)", "failed: code cell 2 ended its kernel, most often for want of memory; run it by"),
        ("import time; time.sleep(30)", "failed: code cell 2 took more than 2 s; run it by hand in  workbench lab"),
    ],
)
def test_a_tour_that_fails_says_so(checkout, monkeypatch, capfd, cell, words):
    monkeypatch.setattr("workbench.__main__.PATIENCE", 2)
    code, said = check(checkout, capfd, "1", cell)
    assert code == 1
    assert words in said
    assert words == "a claim" or len(said.splitlines()) == 1


@contextmanager
def stopped_at(where, at):
    """Press Ctrl-C when the bar of that name has come so far."""

    def pressing(bar, task, **told):
        update(bar, task, **told)
        if bar.tasks[task].description == where and bar.tasks[task].completed >= at:
            signal.raise_signal(signal.SIGINT)

    update = Progress.update
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.training.bar.INTERVAL", 0)
        patch.setattr(Progress, "update", pressing)
        yield


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


LINES = [" ".join(WORDS[i - 3] for i in row[1:]) for row in tokens_of(300, 12).tolist()]


@pytest.fixture
def given(model_directories, tmp_path):
    """The words of a small training."""
    (tmp_path / "text.txt").write_text("\n".join(LINES))
    few = ["--features", "64", "--k", "4", "--steps", "20", "--lr", "1e-3", "--layer", "1"]
    return ["--model", str(model_directories["neox"]), "--text", str(tmp_path / "text.txt"), *few]


def test_train_writes_a_dictionary_that_loads_and_says_how_it_was_made(tmp_path, capsys, given):
    out = tmp_path / "out"
    assert code_of("train", str(out), *given) == 0
    said = capsys.readouterr()
    assert "64 features at 1.resid_post" in said.out
    assert "rows are few" not in said.out
    for bar in ("training text", "held-out text", "training", "measuring"):
        assert re.search(rf"^{bar} +━+ +100% ", said.err, re.MULTILINE), bar
    assert load_dictionary(out).n_features == 64
    load_dictionary(out).check(load_model(given[1]))
    told = json.loads((out / "dictionary.json").read_text())["provenance"]
    assert told["command"] == shlex.join(["workbench", "train", "DIRECTORY", *given])
    assert told["rows"] == {"train": 270 * 11, "held_out": 30 * 11, "spliced": 30 * 11}
    assert told["training"]["batch"] == 2048
    assert not (out / "unfinished").exists()


def test_few_rows_are_a_smaller_batch_and_a_warning(tmp_path, capsys, given):
    (tmp_path / "text.txt").write_text("\n".join(LINES[:20]))
    assert code_of("train", str(tmp_path / "out"), *given) == 0
    assert "198 rows are few for 64 features, which want 640: give more text." in capsys.readouterr().out
    told = json.loads((tmp_path / "out" / "dictionary.json").read_text())["provenance"]
    assert told["training"]["batch"] == 198


def test_a_finished_dictionary_is_replaced_only_when_asked(tmp_path, given):
    out = tmp_path / "out"
    assert code_of("train", str(out), *given) == 0
    before = (out / "dictionary.json").read_text()
    with pytest.raises(SystemExit, match="holds a finished dictionary; give --replace, or another directory"):
        main(["train", str(out), *given, "--seed", "1"])
    assert (out / "dictionary.json").read_text() == before
    assert code_of("train", str(out), *given, "--seed", "1", "--replace") == 0
    assert "--seed 1" in (out / "dictionary.json").read_text()
    assert "--replace" not in (out / "dictionary.json").read_text()


@pytest.mark.parametrize(
    ("where", "at", "words"),
    [
        ("training text", 0, "nothing is kept yet"),
        ("training text", 200, r"[12]\d\d\d rows are kept in"),
        ("held-out text", 1, "2970 rows are kept in"),
        ("training", 7, "step 7 is kept in"),
    ],
)
def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(tmp_path, monkeypatch, capsys, given, where, at, words):
    monkeypatch.setattr("workbench.activations.store.SHARD_BYTES", 1)  # so that a shard has the fewest rows, 1024
    assert code_of("train", str(tmp_path / "whole"), *given) == 0
    out = tmp_path / "the out"
    capsys.readouterr()
    with stopped_at(where, at):
        assert code_of("train", str(out), *given) == 130
    *_, last = capsys.readouterr().err.splitlines()
    told = re.fullmatch(rf"Stopped; {words}.*\. Go on with:  (workbench train .*)", last)
    assert told
    assert code_of(*shlex.split(told[1])[1:]) == 0
    assert same(load_dictionary(out), load_dictionary(tmp_path / "whole"))


def test_a_training_stopped_under_other_options_is_begun_anew_only_when_asked(tmp_path, capsys, given):
    out = tmp_path / "out"
    with stopped_at("training", 7):
        assert code_of("train", str(out), *given) == 130
    told = r"unfinished' holds a training that was stopped, with --k 4 where this has --k 5; give the same to go on"
    with pytest.raises(SystemExit, match=told):
        main(["train", str(out), *given, "--k", "5"])
    kept = (out / "unfinished" / "rows" / "rows-00000.safetensors").stat().st_mtime_ns
    with stopped_at("training", 3):
        assert code_of("train", str(out), *given, "--k", "5", "--replace") == 130
    assert (out / "unfinished" / "rows" / "rows-00000.safetensors").stat().st_mtime_ns == kept  # the rows are the same
    (tmp_path / "text.txt").write_text("\n".join(LINES[::-1]))
    with pytest.raises(SystemExit, match=r"with --text .*text\.txt \(\w{8}\), --k 5 where this has --text"):
        main(["train", str(out), *given])
    assert code_of("train", str(out), *given, "--replace") == 0
    assert load_dictionary(out).options["k"] == 4


def test_what_is_wrong_with_an_option_does_not_hold_on_to_it(tmp_path, given):
    with pytest.raises(SystemExit, match=r"A batch holds 1 to 2970 rows"):
        main(["train", str(tmp_path / "out"), *given, "--batch", "9999"])
    assert code_of("train", str(tmp_path / "out"), *given, "--batch", "99") == 0


def test_a_word_that_the_model_lacks_is_shown_where_an_editor_shows_it(tmp_path, given):
    (tmp_path / "text.txt").write_text("\n\n".join([*LINES[:15], "zzz"]))
    with pytest.raises(SystemExit, match=r"train: Line 31 of '.*text\.txt': 'zzz' \(word 1 of the text\) is not in"):
        main(["train", str(tmp_path / "out"), *given])


def test_a_log_hears_how_far_a_training_is(tmp_path, monkeypatch, capsys, given):
    monkeypatch.setattr("workbench.training.bar.LOGGED", 0.0)
    monkeypatch.setattr("workbench.training.bar.INTERVAL", 0.0)
    assert code_of("train", str(tmp_path / "out"), *given) == 0
    said = capsys.readouterr().err
    assert re.findall(r"^training .* (\d+)/20 steps", said, re.MULTILINE)[:3] == ["1", "2", "3"]
    assert said.count("fvu") >= 20


def test_a_scheduler_stops_a_training_as_ctrl_c_does(tmp_path, given):
    out = tmp_path / "out"
    words = ["train", str(out), *given, "--steps", "100000"]
    with subprocess.Popen(
        [sys.executable, "-m", "workbench", *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not (out / "unfinished" / "checkpoint.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(r"Stopped; step \d+ is kept in '.*unfinished'", said)


SITES = ["0.resid_post", "0.transcoder", "2.resid_post", "2.transcoder"]
MANY = ["--layer", "2", "0", "--stream", "resid_post", "transcoder", "--seed", "5", "--seeds", "2"]


@pytest.fixture(scope="module")
def many(model_directories, tmp_path_factory):
    """The words of a small training of dictionaries at several sites, and the folder that it wrote."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "text.txt").write_text("\n".join(LINES))
    small = ["--features", "64", "--k", "4", "--steps", "12", "--lr", "1e-3"]
    words = ["--model", str(model_directories["neox"]), "--text", str(folder / "text.txt"), *small, *MANY]
    assert code_of("train", str(folder / "out"), *words) == 0
    return words, folder / "out"


def test_many_dictionaries_are_what_each_is_alone(many, tmp_path):
    words, out = many
    assert sorted(path.name for path in out.iterdir()) == SITES
    for name in SITES:
        layer, stream = name.split(".")
        # What is given again takes the place of what was given before.
        alone = ["--layer", layer, "--stream", stream, "--seeds", "1"]
        assert code_of("train", str(tmp_path / name), *words, *alone) == 0
        ours, its_own = load_dictionary(out / name), load_dictionary(tmp_path / name)
        assert same(ours, its_own)
        assert ours.provenance["held_out"][:1] == its_own.provenance["held_out"]
    assert not same(load_dictionary(out / SITES[0]), load_dictionary(out / SITES[2]))


@pytest.mark.parametrize("name", SITES)
def test_the_card_tells_what_the_dictionary_does_on_text_held_out(many, name):
    words, out = many
    dictionary, model = load_dictionary(out / name), load_model(words[1])
    layer, stream = int(name[0]), name[2:]
    reads, writes = ("mlp_in", "mlp_out") if stream == "transcoder" else (stream, stream)
    assert (dictionary.sites_in, dictionary.sites_out) == ((Site(layer, reads),), (Site(layer, writes),))
    card = dictionary.provenance
    assert card["command"] == shlex.join(["workbench", "train", "DIRECTORY", *words])
    assert [told["seed"] for told in card["held_out"]] == [5, 6]
    first, second = ({key: told[key] for key in ("fvu", "l0", "dead", "kl")} for told in card["held_out"])
    assert first != second
    store = ActivationStore.collect(model, LINES[::10], [Site(layer, reads), Site(layer, writes)])
    found = fidelity(dictionary, store.rows(slice(None)).acts)
    tokens = tokenize(model, LINES[::10])
    kl = splice_kl(model, dictionary, tokens, where=tokens != BOS)
    figures = {"fvu": found.fvu, "l0": found.l0, "dead": found.dead, "kl": float(kl.sum()) / (30 * 11)}
    assert figures == pytest.approx(first, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(("where", "at", "step"), [("training", 7, 7), ("measuring", 3, 12)])
def test_a_stopped_training_of_many_goes_on_to_the_same_dictionaries(many, tmp_path, capsys, where, at, step):
    words, whole = many
    with stopped_at(where, at):
        assert code_of("train", str(tmp_path / "out"), *words) == 130
    assert f"step {step} is kept in" in capsys.readouterr().err
    assert not [*(tmp_path / "out").glob("*/dictionary.json")]
    assert code_of("train", str(tmp_path / "out"), *words) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == SITES
    for name in SITES:
        ours, theirs = load_dictionary(tmp_path / "out" / name), load_dictionary(whole / name)
        assert same(ours, theirs)
        assert ours.provenance == theirs.provenance


def test_one_finished_dictionary_among_many_is_replaced_only_when_asked(many, tmp_path):
    words, whole = many
    out, name = tmp_path / "out", "2.transcoder"
    shutil.copytree(whole / name, out / name)
    card = out / name / "dictionary.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"marked": True}))
    with pytest.raises(SystemExit, match=r"2\.transcoder' holds a finished dictionary; give --replace, or another dir"):
        main(["train", str(out), *words])
    assert [path.name for path in out.iterdir()] == [name]
    assert "marked" in card.read_text()
    (out / "unfinished").mkdir()  # left by another command, it is no leave to replace
    with pytest.raises(SystemExit, match=r"2\.transcoder' holds a finished dictionary; give --replace, or another dir"):
        main(["train", str(out), *words, "--k", "5"])
    assert "marked" in card.read_text()
    assert code_of("train", str(out), *words, "--replace") == 0
    assert "marked" not in card.read_text()


@pytest.mark.parametrize(
    ("where", "words"), [("activations.shards", "nothing is kept yet"), ("dictionaries.files", "2970 rows")]
)
def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch, capsys, given, where, words):
    def full(tensors, file):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(f"workbench.{where}.save_file", full)
    assert code_of("train", str(tmp_path / "out"), *given) == 1
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"workbench train: No space left on device; {words}")
    assert "Go on with:  workbench train" in last


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"--layer": "9"}, "which has 3 layers"),
        ({"--layer": "-1"}, "Layers count from 0"),
        ({"--model": "tinny"}, "The nearest on this machine is 'tiny'"),
        ({"--stream": "resid_pst"}, "the nearest is 'resid_post', all are .*, transcoder"),
        ({"--stream": "transcode"}, "the nearest is 'transcoder'"),
        ({"--seeds": "0"}, "--seeds must be at least 1, got 0"),
        ({"--stream": "pattern"}, "--stream pattern has a row per pair of tokens"),
        ({"--k": "65"}, r"--k must lie in 1\.\.64 \(--features\), got 65"),
        ({"--k": "0"}, r"--k must lie in 1\.\.64"),
        ({"--features": "0"}, "--features must be at least 1, got 0"),
        ({"--batch": "-3"}, "--batch must be at least 1, got -3"),
        ({"--batch": "9999"}, "A batch holds 1 to 2970 rows"),
        ({"--steps": "0"}, "steps must be at least 1, got 0"),
        ({"--lr": "0"}, "lr must be positive"),
        ({"--text": "nowhere.txt"}, "'nowhere.txt' is not a file; --text names a file with one text per line"),
        ({"--text": "empty.txt"}, "'empty.txt' holds 0 texts; it takes two"),
        ({"--text": "latin.txt"}, "'latin.txt' is not text in UTF-8"),
    ],
)
def test_what_is_wrong_is_one_sentence(as_user, tmp_path, monkeypatch, given, arguments, words):
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text(" \n\n")
    Path("latin.txt").write_bytes("süß\nsüß".encode("latin-1"))
    if not re.search("has 3 layers|nearest on|batch holds", words, re.IGNORECASE):  # what the model or its rows tell
        monkeypatch.setattr("workbench.train_command.load_model", lambda name: pytest.fail("the model was loaded"))
    with pytest.raises(SystemExit, match=f"workbench train: .*{words}"):
        main(["train", "x", *given, *(f"{name}={value}" for name, value in arguments.items())])
