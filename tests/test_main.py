"""The commands, as a newcomer types them."""

import json

import pytest

from workbench.__main__ import main
from workbench.dictionaries import load_dictionary


def code_of(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return stop.value.code


def test_doctor_finds_everything_here(capsys):
    assert code_of("doctor") == 0
    said = capsys.readouterr().out
    assert "shipped model     loads and answers" in said
    assert "shipped features  1024 at 2.resid_post" in said
    assert "workbench lab" in said.splitlines()[-1]


def test_doctor_says_what_to_do_where_the_model_is_broken(capsys, monkeypatch):
    monkeypatch.setattr("workbench.models.load_model", lambda *_, **__: (_ for _ in ()).throw(ValueError("truncated")))
    assert code_of("doctor") == 1
    said = capsys.readouterr().out
    assert "the shipped model does not load: truncated" in said
    assert "pip install --force-reinstall" in said


def test_an_empty_folder_gets_the_notebooks_and_keeps_them(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr("subprocess.call", lambda command: called.append(command) or 0)
    assert code_of("lab", str(tmp_path), "--port=9999") == 0
    assert (tmp_path / "00_tour.ipynb").exists()
    assert f"--ServerApp.root_dir={tmp_path}" in called[0]
    assert called[0][-1] == "--port=9999"
    (tmp_path / "00_tour.ipynb").write_text("mine")
    assert code_of("lab", str(tmp_path)) == 0
    assert (tmp_path / "00_tour.ipynb").read_text() == "mine"


def test_a_tour_that_fails_says_so(tmp_path, capsys):
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("assert 1 > 2, 'a claim'")])
    nbformat.write(notebook, tmp_path / "00_tour.ipynb")
    assert code_of("lab", str(tmp_path), "--check") == 1
    assert "a claim" in capsys.readouterr().out


def test_train_writes_a_dictionary_that_loads_and_says_how_it_was_made(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text(
        "\n".join(["Today Mia is at the harbor.", "The boats are lovely.", "She swims near the pier."] * 40)
    )
    out = tmp_path / "out"
    few = ["--features", "64", "--k", "4", "--steps", "20", "--batch", "64"]
    assert code_of("train", str(out), "--layer", "1", "--text", str(text), *few) == 0
    assert "64 features at 1.resid_post" in capsys.readouterr().out
    dictionary = load_dictionary(out)
    assert dictionary.n_features == 64
    told = json.loads((out / "dictionary.json").read_text())["provenance"]
    assert told["rows"]["train"] > told["rows"]["held_out"] > 0
    assert not (out / "unfinished").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "x", "--layer", "9"), "workbench train: .*which has 5 layers"),
        (("train", "x", "--model", "tinny"), "workbench train: .*tiny"),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments, words):
    with pytest.raises(SystemExit, match=words):
        main(list(arguments))
