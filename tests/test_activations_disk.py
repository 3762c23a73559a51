"""Stores on disk: what stops a harvest, how it goes on, and what is refused."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import D_MODEL, corpus
from safetensors import SafetensorError
from safetensors.torch import save_file

from workbench.activations import ActivationStore, shards
from workbench.language import Documents
from workbench.models import Site, load_model

SITES = [Site(1), Site(0, "mlp_out"), Site(1, "z")]
DOCUMENTS = corpus(40)


def collect(model, directory=None, **changes) -> ActivationStore:
    """Harvest in small pieces; ``changes`` replace these arguments or add to them."""
    arguments = {"source": DOCUMENTS, "sites": SITES, "batch_tokens": 100, "shard_rows": 100} | changes
    return ActivationStore.collect(model, directory=directory, **arguments)


def files_of(directory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_a_store_on_disk_is_the_store_in_memory(tiny_model, tmp_path):
    memory = collect(tiny_model).rows(slice(None))
    collect(tiny_model, tmp_path / "a")
    store = ActivationStore.open(str(tmp_path / "a"))
    assert store.complete
    assert store.sites == tuple(SITES)
    assert repr(store).startswith(f"ActivationStore({len(memory.tokens)} rows of 40 documents at 1.resid_post (32)")
    disk = store.rows(slice(None))
    assert torch.equal(disk.tokens, memory.tokens)
    for site in SITES:
        assert torch.equal(disk.acts[site], memory.acts[site])
    store.check(tiny_model)
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert len(manifest["parts"]) == len(list((tmp_path / "a").glob("*.safetensors"))) > 3
    assert sum(part["rows"] for part in manifest["parts"]) == len(store)
    assert manifest["sites"] == {"1.resid_post": D_MODEL, "0.mlp_out": D_MODEL, "1.z": D_MODEL}
    assert manifest["dtype"] == "float32"


HARVEST = """
import os, signal, sys, torch
from safetensors.torch import load_file
torch.set_num_threads(1)
from workbench.activations import ActivationStore, shards
from workbench.language import Documents
from workbench.models import Site, load_model

path, documents, *ways = sys.argv[1:]
model, write, calls = load_model(path), shards.Manifest.write, []
source = Documents(**load_file(documents), labels={})

def die(*args):
    calls.append(1)
    if len(calls) == (9 if way.endswith("forward") else 3):
        os.kill(os.getpid(), signal.SIGKILL)

for way in ways:
    child = os.fork()
    if child == 0:
        progress = None
        if way.endswith("forward"):
            progress = die
        elif way.endswith("manifest"):
            shards.Manifest.write = lambda self, place: die() or write(self, place)
        else:
            save = shards.save_file
            shards.save_file = lambda rows, file: save(rows, file.with_name(".tmpA1b2C3")) or die() or save(rows, file)
        options = {"batch_tokens": 100, "shard_rows": 100, "progress": progress}
        ActivationStore.collect(model, source, [Site(1)], directory=way, **options)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
"""


def test_a_killed_harvest_goes_on_without_a_lost_or_a_double_row(model_directories, tmp_path):
    source = corpus(60)
    source = Documents(source.tokens, source.lengths, {})
    save_file({"tokens": source.tokens, "lengths": source.lengths}, tmp_path / "documents.safetensors")
    ways = ["in a forward", "in the writing of a file", "between a file and its manifest"]
    command = [sys.executable, "-c", HARVEST, str(model_directories["neox"]), "documents.safetensors", *ways]
    subprocess.run(command, cwd=tmp_path, check=True)
    model = load_model(model_directories["neox"])
    whole = collect(model, tmp_path / "whole", source=source, sites=[Site(1)])
    for way in ways:
        part = ActivationStore.open(tmp_path / way)
        assert not part.complete
        assert 0 < len(part) < len(whole)
        assert torch.equal(part.rows(slice(None)).acts[Site(1)], whole.rows(slice(len(part))).acts[Site(1)])
        collect(model, tmp_path / way, source=source, sites=[Site(1)])
        assert files_of(tmp_path / way) == files_of(tmp_path / "whole")


def test_an_interrupt_saves_and_says_how_to_go_on(tiny_model, tmp_path):
    collect(tiny_model, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt, match=r"\d+ rows of \d+ documents are safe in .* the same call .* goes on"):
        collect(tiny_model, tmp_path / "part", progress=interrupt)
    assert 100 <= len(ActivationStore.open(tmp_path / "part")) <= 300
    collect(tiny_model, tmp_path / "part")
    assert files_of(tmp_path / "part") == files_of(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt, match="Nothing is kept of a harvest in memory; give directory="):
        collect(tiny_model, progress=interrupt)


def interrupt(documents: int, rows: int) -> None:
    if rows > 200:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0)


@pytest.mark.parametrize("call", [7, 8, 9, 10])  # two calls sync a file, two the manifest
def test_a_full_disk_keeps_what_was_written(tiny_model, tmp_path, monkeypatch, call):
    collect(tiny_model, tmp_path / "whole")
    calls, sync = [], os.fsync

    def full(descriptor):
        calls.append(1)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"The disk is full\. \d+ rows of \d+ documents are safe in") as caught:
        collect(tiny_model, tmp_path / "part")
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    kept = ActivationStore.open(tmp_path / "part")
    assert torch.equal(
        kept.rows(slice(None)).tokens, ActivationStore.open(tmp_path / "whole").rows(slice(len(kept))).tokens
    )
    collect(tiny_model, tmp_path / "part")
    assert files_of(tmp_path / "part") == files_of(tmp_path / "whole")


def test_a_full_disk_is_understood_from_the_writer_of_shards(tiny_model, tmp_path, monkeypatch):
    def full(columns, file):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(shards, "save_file", full)
    with pytest.raises(OSError, match=r"The disk is full\. 0 rows of 0 documents are safe"):
        collect(tiny_model, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]
    with pytest.raises(ValueError, match="holds no rows yet; collect, called as before, goes on with it"):
        ActivationStore.open(tmp_path)
    monkeypatch.undo()
    # Nothing was kept, so nothing binds the next harvest.
    assert collect(tiny_model, tmp_path, sites=[Site(0)]).complete


def test_a_finished_harvest_is_not_made_again(tiny_model, tmp_path):
    first = collect(tiny_model, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    assert len(collect(tiny_model, tmp_path)) == len(first)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")} == before


# What is refused.


@pytest.fixture
def harvested(tiny_model, tmp_path):
    collect(tiny_model, tmp_path / "store", sites=[Site(1)])
    return tmp_path / "store"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": corpus(40, seed=1)}, "was harvested from other documents than these"),
        ({"source": DOCUMENTS[:20]}, "was harvested from other documents than these"),
        ({"sites": [Site(0)]}, r"holds a harvest with other sites \(.*1\.resid_post.*asked for .*0\.resid_post"),
        ({"keep_bos": True}, r"other settings \(.*keep_bos"),
        ({"dtype": torch.float16}, r"other dtype \( ?float32, asked for float16"),
        ({"source": ["the cat"]}, "other labels"),
    ],
)
def test_a_harvest_goes_on_only_as_it_was_begun(tiny_model, harvested, change, words):
    with pytest.raises(ValueError, match=words):
        collect(tiny_model, harvested, **{"sites": [Site(1)], **change})


def test_a_harvest_goes_into_a_directory_of_its_own(tiny_model, tmp_path):
    (tmp_path / "notes").mkdir()
    for name in ("essay.txt", "sums.txt"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=r"holds no activations, but other things \('essay\.txt' among 3\); a store"):
        collect(tiny_model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["essay.txt", "notes", "sums.txt"]
    for place in (tmp_path / "essay.txt", tmp_path / "essay.txt" / "store"):
        with pytest.raises(ValueError, match=r"is a file or lies in one; a store is a directory, so give another"):
            collect(tiny_model, place)


def test_what_a_writer_killed_at_its_manifest_leaves_is_no_hindrance(tiny_model, tmp_path):
    (tmp_path / "manifest.json.tmp").write_text("{")
    (tmp_path / ".DS_Store").write_text("")
    assert collect(tiny_model, tmp_path).complete


def test_a_store_knows_its_model(loaded, harvested):
    store = ActivationStore.open(harvested)
    store.check(loaded["neox"])
    with pytest.raises(ValueError, match="came from another model, 'neox' with fingerprint"):
        store.check(loaded["llama"])
    with pytest.raises(ValueError, match=r"holds a harvest with another model \(fingerprint"):
        collect(loaded["llama"], harvested, sites=[Site(1)])


def cut(path):
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, "holds no activations, for it has no manifest"),
        (
            lambda place: cut(place / "rows-00001.safetensors"),
            r"rows-00001.safetensors' is missing, corrupt or truncated",
        ),
        (lambda place: (place / "rows-00001.safetensors").unlink(), r"rows-00001.safetensors' is missing"),
        (lambda place: (place / "manifest.json").write_text("{"), "is not a manifest of activations"),
        (lambda place: (place / "manifest.json").write_text('{"format": "x"}'), "is not a manifest of activations"),
        (
            lambda place: shutil.copy(place / "rows-00000.safetensors", place / "rows-00001.safetensors"),
            "rows, but the manifest says",
        ),
    ],
)
def test_a_damaged_store_is_met_by_a_sentence(harvested, damage, words):
    damage(harvested)
    with pytest.raises(ValueError, match=words):
        ActivationStore.open(harvested)


def test_wrong_rows_are_met_by_a_sentence(harvested):
    store = ActivationStore.open(harvested)
    with pytest.raises(ValueError, match=r"This store has no 2\.resid_post; the nearest is 1\.resid_post"):
        store.rows(0, sites=[Site(2)])
    with pytest.raises(ValueError, match=f"numbered 0 to {len(store) - 1}, got"):
        store.rows(len(store))
    with pytest.raises(ValueError, match=rf"A mask over rows has shape \({len(store)},\), got \(3,\)"):
        store.rows(torch.ones(3, dtype=torch.bool))
