"""Training the shipped kind of model: killed anywhere, it comes out the same."""

import json
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file

from workbench.language.exam import examine, planted
from workbench.language.language import Language
from workbench.language.train import Recipe, batches, build_model, lr_at
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
        assert how == signal.SIGKILL or "give the same command again to go on from there" in said
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


@pytest.mark.slow
def test_another_recipe_does_not_go_on_with_an_unfinished_run(tmp_path):
    run = start(tmp_path)
    wait_for_checkpoint(tmp_path, run)
    run.kill()
    run.wait()
    said = start(tmp_path, "--lr", "0.1").communicate()[1]
    assert "holds an unfinished run of another recipe" in said
    assert "give the same options to go on with it, or another directory" in said


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
