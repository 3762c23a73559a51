"""Harvesting: rows against a naive loop, every kind of source, and what stops a harvest."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import datasets
import pytest
import torch
from conftest import D_MODEL, N_CTX, WORDS
from safetensors import SafetensorError
from safetensors.torch import save_file

from workbench.activations import ActivationStore, shards
from workbench.language import Column, Documents
from workbench.models import Site, edited, load_model, record, tokenize

SITES = [Site(1), Site(0, "mlp_out"), Site(1, "z")]
BOS, EOS = 1, 2


def corpus(count: int, seed: int = 0) -> Documents:
    """Documents of random words, labelled by what can be checked: the word's parity and the place in the document."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 20, (count,), generator=generator)
    tokens = torch.randint(3, len(WORDS) + 3, (count, int(lengths.max())), generator=generator)
    place = torch.arange(tokens.shape[1])
    tokens[:, 0] = BOS
    tokens[torch.arange(count), lengths - 1] = EOS
    tokens[place >= lengths[:, None]] = 0
    parity = Column(1 + tokens % 2, ("", "even", "odd"))
    half = Column(torch.where(place < lengths[:, None] // 2, 1, 2), ("", "first", "second"))
    return Documents(tokens, lengths, {"parity": parity, "half": half})


DOCUMENTS = corpus(40)
TEXTS = [
    " ".join(WORDS[i - 3] for i in row[1 : length - 1].tolist())
    for row, length in zip(DOCUMENTS.tokens, DOCUMENTS.lengths, strict=True)
]


def naive(model, documents: Documents, sites=SITES, *, keep_bos=False):
    """One forward per document and a loop over its tokens."""
    rows = []
    for doc, length in enumerate(documents.lengths.tolist()):
        tokens = documents.tokens[doc, :length]
        acts = record(model, tokens[None], sites)
        for pos, token in enumerate(tokens.tolist()):
            if keep_bos or token != BOS:
                rows.append((doc, pos, token, {site: acts[site][0, pos].flatten() for site in sites}))
    return rows


# Rows.


def test_rows_are_those_of_a_naive_loop(model):
    store = ActivationStore.collect(model, DOCUMENTS, SITES, batch_tokens=100, shard_rows=150)
    expected = naive(model, DOCUMENTS)
    rows = store.rows(slice(None))
    assert len(store) == len(expected) == int((DOCUMENTS.lengths - 1).sum())
    assert rows.doc.tolist() == [row[0] for row in expected]
    assert rows.pos.tolist() == [row[1] for row in expected]
    assert rows.tokens.tolist() == [row[2] for row in expected]
    for site in SITES:
        torch.testing.assert_close(
            rows.acts[site], torch.stack([row[3][site] for row in expected]), rtol=1e-5, atol=1e-5
        )
    for name, column in DOCUMENTS.labels.items():
        assert torch.equal(rows.labels[name], column.codes[rows.doc, rows.pos])
        assert store.names[name] == column.names


def test_the_beginning_of_text_is_kept_only_when_asked_and_the_end_always(tiny_model):
    plain = ActivationStore.collect(tiny_model, DOCUMENTS, [Site(0)]).rows(slice(None))
    assert (plain.tokens == BOS).sum() == 0
    assert (plain.tokens == EOS).sum() == len(DOCUMENTS)
    assert (plain.tokens == 0).sum() == 0
    kept = ActivationStore.collect(tiny_model, DOCUMENTS, [Site(0)], keep_bos=True)
    assert len(kept) == int(DOCUMENTS.lengths.sum())
    assert torch.equal(kept.rows(kept.rows(slice(None), sites=()).pos > 0).acts[Site(0)], plain.acts[Site(0)])


def test_one_forward_serves_all_sites_and_stops_after_the_last(tiny_model):
    ran = []
    handles = [
        block.mlp.register_forward_hook(lambda module, args, output, layer=layer: ran.append(layer))
        for layer, block in enumerate(tiny_model.blocks)
    ]
    ActivationStore.collect(tiny_model, DOCUMENTS[:2], SITES)
    for handle in handles:
        handle.remove()
    assert ran == [0, 1] * 2  # one forward for the widths, one for the documents


@pytest.mark.parametrize(
    "source",
    [
        TEXTS,
        (text for text in TEXTS),
        datasets.Dataset.from_dict({"text": TEXTS, "id": range(len(TEXTS))}),
        datasets.Dataset.from_dict({"text": TEXTS}).to_iterable_dataset(),
        DOCUMENTS.tokens,
        list(DOCUMENTS.tokens[:, :1]),
    ],
    ids=["texts", "generator", "data set", "iterable data set", "padded tokens", "beginnings"],
)
def test_every_kind_of_source_gives_the_same_rows(tiny_model, source, request):
    if request.node.callspec.id == "beginnings":
        with pytest.raises(ValueError, match="The source is empty"):
            ActivationStore.collect(tiny_model, source, [Site(1)])
        return
    rows = ActivationStore.collect(tiny_model, source, [Site(1)]).rows(slice(None))
    expected = ActivationStore.collect(tiny_model, DOCUMENTS, [Site(1)])
    words = expected.rows(slice(None), sites=()).tokens
    expected = expected.rows(slice(None) if source is DOCUMENTS.tokens else words != EOS)  # texts have no end
    assert torch.equal(rows.tokens, expected.tokens)
    assert torch.equal(rows.doc, expected.doc)
    torch.testing.assert_close(rows.acts[Site(1)], expected.acts[Site(1)], rtol=1e-5, atol=1e-5)


def test_a_text_file_holds_one_document_per_line(tiny_model, tmp_path):
    file = tmp_path / "corpus.txt"
    file.write_text("the cat sleeps\n\nthe dog runs\n", encoding="utf-8")
    rows = ActivationStore.collect(tiny_model, file, [Site(1)]).rows(slice(None))
    assert rows.doc.tolist() == [0, 0, 0, 2, 2, 2]
    assert rows.tokens.tolist() == [
        *tokenize(tiny_model, "the cat sleeps")[0, 1:],
        *tokenize(tiny_model, "the dog runs")[0, 1:],
    ]


def test_a_text_longer_than_the_context_is_cut_into_pieces(tiny_model):
    words = [WORDS[i % len(WORDS)] for i in range(N_CTX + 10)]
    rows = ActivationStore.collect(tiny_model, [" ".join(words)], [Site(1)]).rows(slice(None))
    assert [WORDS[token - 3] for token in rows.tokens.tolist()] == words
    assert rows.pos.tolist() == [*range(1, N_CTX), *range(1, 12)]
    assert set(rows.doc.tolist()) == {0}
    second = tokenize(tiny_model, " ".join(words[N_CTX - 1 :]))
    expected = record(tiny_model, second, [Site(1)])[Site(1)][0, 1:]
    torch.testing.assert_close(rows.acts[Site(1)][N_CTX - 1 :], expected, rtol=1e-5, atol=1e-5)


def test_rows_can_be_chosen_in_any_way(tiny_model, tmp_path):
    store = ActivationStore.collect(tiny_model, DOCUMENTS, [Site(1)], directory=tmp_path, shard_rows=100)
    whole = store.rows(slice(None))
    scattered = torch.randperm(len(store), generator=torch.Generator().manual_seed(0))[:50]
    for index in (
        scattered,
        scattered.tolist(),
        slice(90, 210, 3),
        -1,
        [0],
        [],
        whole.labels["parity"] == 2,
        range(95, 105),
    ):
        chosen = torch.arange(len(store))[list(index) if isinstance(index, range) else index].reshape(-1)
        rows = store.rows(index)
        assert torch.equal(rows.acts[Site(1)], whole.acts[Site(1)][chosen])
        assert torch.equal(rows.tokens, whole.tokens[chosen])
        assert torch.equal(rows.labels["half"], whole.labels["half"][chosen])
    frame = store.rows(slice(5)).to_frame()
    assert list(frame.columns) == ["token", "pos", "doc", "parity", "half"]
    assert frame["half"].tolist() == [DOCUMENTS.labels["half"].names[code] for code in whole.labels["half"][:5]]


def test_half_precision_on_disk_comes_back_as_float32(tiny_model, tmp_path):
    full = ActivationStore.collect(tiny_model, DOCUMENTS, [Site(1)])
    half = ActivationStore.collect(tiny_model, DOCUMENTS, [Site(1)], directory=tmp_path, dtype=torch.float16)
    rows = half.rows(slice(None)).acts[Site(1)]
    assert rows.dtype == next(half.batches([Site(1)], 8, 0))[Site(1)].dtype == torch.float32
    torch.testing.assert_close(rows, full.rows(slice(None)).acts[Site(1)], rtol=1e-3, atol=1e-3)


def test_progress_counts_to_the_end(tiny_model):
    seen = []
    store = ActivationStore.collect(
        tiny_model, DOCUMENTS, [Site(1)], batch_tokens=100, shard_rows=150, progress=lambda *done: seen.append(done)
    )
    assert seen == sorted(seen)
    assert seen[-1] == (len(DOCUMENTS), len(store))


# On disk.


def files_of(directory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_a_store_on_disk_is_the_store_in_memory(tiny_model, tmp_path):
    memory = ActivationStore.collect(tiny_model, DOCUMENTS, SITES, shard_rows=100).rows(slice(None))
    ActivationStore.collect(tiny_model, DOCUMENTS, SITES, shard_rows=100, directory=tmp_path / "a")
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
    if len(calls) == 3:
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
    options = {"batch_tokens": 100, "shard_rows": 100}
    model = load_model(model_directories["neox"])
    whole = ActivationStore.collect(model, source, [Site(1)], directory=tmp_path / "whole", **options)
    for way in ways:
        part = ActivationStore.open(tmp_path / way)
        assert not part.complete
        assert 0 < len(part) < len(whole)
        assert torch.equal(part.rows(slice(None)).acts[Site(1)], whole.rows(slice(len(part))).acts[Site(1)])
        ActivationStore.collect(model, source, [Site(1)], directory=tmp_path / way, **options)
        assert files_of(tmp_path / way) == files_of(tmp_path / "whole")


def test_an_interrupt_saves_and_says_how_to_go_on(tiny_model, tmp_path):
    options = {"batch_tokens": 100, "shard_rows": 100}
    ActivationStore.collect(tiny_model, DOCUMENTS, SITES, directory=tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt, match=r"\d+ rows of \d+ documents are safe in .* the same call .* goes on"):
        ActivationStore.collect(
            tiny_model, DOCUMENTS, SITES, directory=tmp_path / "part", progress=interrupt_after(200), **options
        )
    assert 100 <= len(ActivationStore.open(tmp_path / "part")) <= 300
    ActivationStore.collect(tiny_model, DOCUMENTS, SITES, directory=tmp_path / "part", **options)
    assert files_of(tmp_path / "part") == files_of(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt, match="Nothing is kept of a harvest in memory; give directory="):
        ActivationStore.collect(tiny_model, DOCUMENTS, SITES, progress=interrupt_after(200), **options)


def interrupt_after(rows: int):
    def progress(documents, done):
        if done > rows:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0)

    return progress


@pytest.mark.parametrize("call", [3, 4, 5, 6])  # two calls sync the file, two the manifest
def test_a_full_disk_keeps_what_was_written(tiny_model, tmp_path, monkeypatch, call):
    options = {"batch_tokens": 100, "shard_rows": 100}
    ActivationStore.collect(tiny_model, DOCUMENTS, SITES, directory=tmp_path / "whole", **options)
    calls, sync = [], os.fsync

    def full(descriptor):
        calls.append(1)
        if len(calls) == call + 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"The disk is full\. \d+ rows of \d+ documents are safe in") as caught:
        ActivationStore.collect(tiny_model, DOCUMENTS, SITES, directory=tmp_path / "part", **options)
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    kept = ActivationStore.open(tmp_path / "part")
    assert torch.equal(
        kept.rows(slice(None)).tokens, ActivationStore.open(tmp_path / "whole").rows(slice(len(kept))).tokens
    )
    ActivationStore.collect(tiny_model, DOCUMENTS, SITES, directory=tmp_path / "part", **options)
    assert files_of(tmp_path / "part") == files_of(tmp_path / "whole")


def test_a_full_disk_is_understood_from_the_writer_of_shards(tiny_model, tmp_path, monkeypatch):
    def full(columns, file):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(shards, "save_file", full)
    with pytest.raises(OSError, match=r"The disk is full\. 0 rows of 0 documents are safe"):
        ActivationStore.collect(tiny_model, DOCUMENTS, [Site(1)], directory=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_finished_harvest_is_not_made_again(tiny_model, tmp_path):
    first = ActivationStore.collect(tiny_model, DOCUMENTS, [Site(1)], directory=tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    again = ActivationStore.collect(tiny_model, DOCUMENTS, [Site(1)], directory=tmp_path)
    assert len(again) == len(first)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")} == before


# What is refused.


@pytest.fixture
def harvested(tiny_model, tmp_path):
    ActivationStore.collect(tiny_model, DOCUMENTS, [Site(1)], directory=tmp_path / "store", shard_rows=100)
    return tmp_path / "store"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": corpus(40, seed=1)}, "was harvested from other documents than these"),
        ({"source": DOCUMENTS[:20]}, "was harvested from other documents than these"),
        ({"sites": [Site(0)]}, r"holds a harvest with other sites \(.*1\.resid_post.*asked for .*0\.resid_post"),
        ({"keep_bos": True}, r"other settings \(.*keep_bos"),
        ({"dtype": torch.float16}, r"other dtype \( ?float32, asked for float16"),
        ({"source": TEXTS}, "other labels"),
    ],
)
def test_a_harvest_goes_on_only_as_it_was_begun(tiny_model, harvested, change, words):
    arguments = {"source": DOCUMENTS, "sites": [Site(1)], "directory": harvested, "shard_rows": 100} | change
    with pytest.raises(ValueError, match=words):
        ActivationStore.collect(tiny_model, **arguments)


def test_a_store_knows_its_model(loaded, harvested):
    store = ActivationStore.open(harvested)
    store.check(loaded["neox"])
    with pytest.raises(ValueError, match="came from another model, 'neox' with fingerprint"):
        store.check(loaded["llama"])
    with pytest.raises(ValueError, match=r"holds a harvest with another model \(fingerprint"):
        ActivationStore.collect(loaded["llama"], DOCUMENTS, [Site(1)], directory=harvested, shard_rows=100)


@pytest.mark.parametrize("source", [[], [""], ["  "], torch.zeros(0, 5, dtype=torch.long), DOCUMENTS[:0]])
def test_an_empty_corpus_is_met_by_a_sentence(tiny_model, source, tmp_path):
    for directory in (None, tmp_path):
        with pytest.raises(ValueError, match="The source is empty: it holds no token"):
            ActivationStore.collect(tiny_model, source, [Site(1)], directory=directory)


def test_activations_that_are_no_numbers_are_named(tiny_model, tmp_path):
    def break_one(acts, context):
        return torch.where((context.tokens == EOS)[..., None] & (context.positions == 9)[..., None], torch.nan, acts)

    doc = int((DOCUMENTS.lengths == 10).nonzero()[0])
    words = rf"activation at 1\.resid_post is nan in document {doc} at position 9; leave that document out"
    with edited(tiny_model, {Site(1): break_one}), pytest.raises(ValueError, match=words):
        ActivationStore.collect(tiny_model, DOCUMENTS[: doc + 1], [Site(1)])
    with edited(tiny_model, {Site(1): lambda acts, context: acts * 1e6}):
        assert len(ActivationStore.collect(tiny_model, DOCUMENTS, [Site(1)]))
        with pytest.raises(ValueError, match=r"which does not fit torch\.float16; store it as torch\.float32"):
            ActivationStore.collect(tiny_model, DOCUMENTS, [Site(1)], dtype=torch.float16)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"source": "the cat"}, TypeError, r"A single text is not a corpus; pass \[text\]"),
        ({"source": {"train": TEXTS}}, TypeError, r"holds several data sets \(train\); pass one"),
        ({"source": [3]}, TypeError, "Document 0 of the source is int; a document is a text"),
        ({"source": [{"story": "the cat"}]}, ValueError, r"have story, but no 'text'; rename a column"),
        ({"source": ["the cat", "the cats"]}, ValueError, r"Document 1 of the source: 'cats' \(word 2"),
        ({"source": torch.zeros(2, 3)}, ValueError, r"integer \[doc, pos\] tensor, got torch\.float32 \(2, 3\)"),
        ({"sites": [Site(1, "pattern")]}, ValueError, r"1\.pattern has a row per pair of tokens"),
        ({"sites": []}, ValueError, "at least one site"),
        ({"sites": [Site(5)]}, ValueError, "which has 3 layers"),
        ({"dtype": torch.int8}, ValueError, "stored as float16, bfloat16, float32, float64, got int8"),
        ({"batch_tokens": 0}, ValueError, "batch_tokens must be at least 1, got 0"),
    ],
)
def test_wrong_requests_are_met_by_a_sentence(as_user, tiny_model, arguments, error, words):
    with pytest.raises(error, match=words):
        ActivationStore.collect(tiny_model, **({"source": DOCUMENTS, "sites": [Site(1)]} | arguments))


def test_a_missing_file_is_met_by_a_sentence(tiny_model, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.txt' is not a file; a text file holds one document per line"):
        ActivationStore.collect(tiny_model, tmp_path / "nowhere.txt", [Site(1)])


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
