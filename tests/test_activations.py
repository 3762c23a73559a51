"""Harvesting: rows against a naive loop, every kind of source, and what is refused."""

from itertools import pairwise

import datasets
import pytest
import torch
from conftest import BOS, EOS, N_CTX, WORDS, corpus, layers_run

from workbench.activations import ActivationStore
from workbench.models import Site, edited, load_model, record, tokenize

SITES = [Site(1), Site(0, "mlp_out"), Site(1, "z")]
DOCUMENTS = corpus(40)
TEXTS = [" ".join(WORDS[token - 3] for token in row.tolist() if token >= 3) for row in DOCUMENTS.tokens]


def naive(model, documents, sites):
    """One forward per document and a loop over its tokens."""
    rows = []
    for doc, length in enumerate(documents.lengths.tolist()):
        tokens = documents.tokens[doc, :length]
        acts = record(model, tokens[None], sites)
        for pos, token in enumerate(tokens.tolist()):
            if token != BOS:
                rows.append((doc, pos, token, {site: acts[site][0, pos].flatten() for site in sites}))
    return rows


# Rows.


def test_rows_are_those_of_a_naive_loop(model):
    store = ActivationStore.collect(model, DOCUMENTS, SITES, batch_tokens=100, shard_rows=150)
    expected = naive(model, DOCUMENTS, SITES)
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
    begins = kept.rows(kept.rows(slice(None), sites=()).pos == 0)
    assert set(begins.tokens.tolist()) == {BOS}
    assert begins.doc.tolist() == list(range(len(DOCUMENTS)))
    expected = record(tiny_model, torch.tensor([[BOS]]), [Site(0)])[Site(0)][0]  # nothing stands before it
    torch.testing.assert_close(begins.acts[Site(0)], expected.expand(len(DOCUMENTS), -1), rtol=1e-5, atol=1e-5)


def test_one_forward_serves_all_sites_and_stops_after_the_last(tiny_model):
    with layers_run(tiny_model) as ran:
        ActivationStore.collect(tiny_model, DOCUMENTS[:2], SITES)
    assert ran == [0, 1] * 2  # one forward for the widths, one for the documents


@pytest.mark.parametrize(
    "source",
    [
        TEXTS,
        (text for text in TEXTS),
        datasets.Dataset.from_dict({"text": TEXTS, "id": range(len(TEXTS))}),
        datasets.Dataset.from_dict({"text": TEXTS}).to_iterable_dataset(),
        DOCUMENTS.tokens,
        list(DOCUMENTS.tokens),
    ],
    ids=["texts", "generator", "data set", "iterable data set", "padded tokens", "padded rows"],
)
def test_every_kind_of_source_gives_the_same_rows(tiny_model, source):
    rows = ActivationStore.collect(tiny_model, source, [Site(1)]).rows(slice(None))
    expected = ActivationStore.collect(tiny_model, DOCUMENTS, [Site(1)])
    words = expected.rows(slice(None), sites=()).tokens
    texts = rows.tokens[-1] != EOS  # which have no end
    expected = expected.rows(words != EOS if texts else slice(None))
    assert torch.equal(rows.tokens, expected.tokens)
    assert torch.equal(rows.doc, expected.doc)
    torch.testing.assert_close(rows.acts[Site(1)], expected.acts[Site(1)], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("row", [[0, 0, BOS, 3, 4], [0, BOS, 3, 4, 0], [BOS, 3, 0, 4, 0]])
def test_padding_before_a_token_is_refused(tiny_model, row):
    words = r"Document 1 of the source has padding \(token 0\) before a real token; padding must come last"
    for source in (torch.tensor([[BOS, 3, 4, 5, 6], row]), [torch.tensor([BOS, 3]), torch.tensor(row)]):
        with pytest.raises(ValueError, match=words):
            ActivationStore.collect(tiny_model, source, [Site(1)])


def test_a_pad_that_also_ends_texts_may_stand_within_and_ends_a_tensor_of_its_own(model_directories):
    model = load_model(model_directories["neox"], device="cpu")
    model.tokenizer.pad_token = "<eos>"

    def kept(source) -> list[int]:
        return ActivationStore.collect(model, source, [Site(1)]).rows(slice(None)).tokens.tolist()

    assert kept(torch.tensor([[EOS, BOS, 3, EOS, 4, EOS]])) == [EOS, 3, EOS, 4]
    assert kept([torch.tensor([BOS, 3, EOS])]) == [3, EOS]
    with pytest.raises(ValueError, match=r"padding \(token 2\) before a real token"):
        kept(torch.tensor([[EOS, EOS, BOS, 3]]))


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


def progress_of(model, source) -> tuple[ActivationStore, list[tuple[int, int]]]:
    seen = []
    store = ActivationStore.collect(
        model, source, [Site(1)], batch_tokens=100, shard_rows=150, progress=lambda *done: seen.append(done)
    )
    return store, seen


def test_progress_counts_to_the_end(tiny_model):
    store, seen = progress_of(tiny_model, DOCUMENTS)
    assert len(seen) > 4
    assert all(later[0] > sooner[0] and later[1] > sooner[1] for sooner, later in pairwise(seen))
    assert seen[-1] == (len(DOCUMENTS), len(store))


def test_progress_counts_documents_however_they_are_cut(tiny_model):
    long = " ".join(WORDS[i % len(WORDS)] for i in range(4 * N_CTX))
    source = ["the cat", long, "", "the dog runs", long, "a cat"]
    store, seen = progress_of(tiny_model, source)
    assert seen == sorted(seen)
    assert seen[-1] == (len(source), len(store))
    lengths = sorted(len(text.split()) for text in source)
    for finished, rows in seen:  # which are finished is not told, but they have the rows of the shortest at least
        assert rows >= sum(lengths[:finished])
    assert f"{len(source)} documents" in repr(store)


# What is refused.


@pytest.mark.parametrize(
    "source",
    [[], [""], ["  "], torch.zeros(0, 5, dtype=torch.long), DOCUMENTS[:0], list(DOCUMENTS.tokens[:, :1])],
)
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
        (
            {"sites": Site(1)},
            TypeError,
            r"takes a list of sites, got one; write \[Site\(layer=1, stream='resid_post'\)\]",
        ),
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
