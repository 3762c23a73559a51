"""Explanations against features whose triggers are planted, and against explainers that fail."""

import doctest
import logging
import random
import re
import sys
import threading
import time
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.activations import ActivationStore
from workbench.activations.shards import Manifest, MemoryShard, Part
from workbench.features import Explanation, FeatureSet, asked, describe, explain, localise
from workbench.features.contexts import AFTER, BEFORE, Contexts, Shown
from workbench.features.explanation import mentions, template
from workbench.features.scoring import accuracy, auroc, fuzzing
from workbench.features.scoring import mean as mean_of
from workbench.models import Site

SEED = random.SystemRandom().randrange(2**20)
HERE = Site(0)
WORDS = 80
WORLDS = 3

ON = range(8)  # active on token 10 + i
AFTER_ONE = range(8, 12)  # active after token 10 + i, on whatever comes
PAIR = range(12, 16)  # active on token 40 + i after any of tokens 50 to 64
SPAN = range(16, 20)  # active in spans of the label "part", on whatever stands there
NOTHING, DEAD, ALWAYS, RARE = 20, 21, 22, 23
PLANTED = [*ON, *AFTER_ONE, *PAIR]


@pytest.fixture(autouse=True)
def _told():
    logging.warning("SEED = %s", SEED)


class Planted:
    """Directions in superposition, read by one threshold."""

    def __init__(self, directions: Tensor):
        self.W_dec = directions

    def encode(self, x: Tensor) -> Tensor:
        return (x @ self.W_dec.T - 0.5).relu()


@cache
def world(seed: int) -> FeatureSet:
    """Random words, features that are active where it is written above, and noise in the activations."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(15, 60, (400,), generator=g)
    doc = torch.repeat_interleave(torch.arange(400), lengths)
    pos = torch.cat([torch.arange(1, length + 1) for length in lengths.tolist()])
    n = len(doc)
    tokens = torch.randint(WORDS, (n,), generator=g)
    before = torch.where(pos > 1, tokens.roll(1), -1)
    part = torch.zeros(n, dtype=torch.long)
    for start in torch.randint(n - 12, (240,), generator=g).tolist():
        end = start + int(torch.randint(3, 12, (1,), generator=g))
        here = doc[start:end] == doc[start]
        part[start:end][here] = int(torch.randint(1, 5, (1,), generator=g))
    on = torch.zeros(n, 24, dtype=torch.bool)
    for i in ON:
        on[:, i] = tokens == 10 + i
    for i in AFTER_ONE:
        on[:, i] = before == 10 + i
    for i in PAIR:
        on[:, i] = (tokens == 40 + i) & (before >= 50) & (before < 65)
    for i in SPAN:
        on[:, i] = part == i - 15
    on[:, NOTHING] = torch.rand(n, generator=g) < 0.02
    on[:, ALWAYS] = torch.rand(n, generator=g) < 0.9
    on[:, RARE] = (doc < 4) & (pos == 1)
    on[:, DEAD] = False
    directions = torch.linalg.qr(torch.randn(48, 24, generator=g))[0].T
    directions = F.normalize(directions + 0.03 * torch.randn(24, 48, generator=g), dim=1)
    directions[DEAD] *= 0.01
    acts = (on * (1 + torch.rand(n, 24, generator=g))) @ directions + 0.05 * torch.randn(n, 48, generator=g)
    names = {"part": ("", "a", "b", "c", "d"), "word": ("", "low", "high")}
    columns = {"token": tokens, "pos": pos, "doc": doc, "label.part": part, "label.word": 1 + (tokens >= 40)}
    shard = MemoryShard({name: one.int() for name, one in columns.items()} | {str(HERE): acts})
    settings = {"keep_bos": False, "batch_tokens": 1, "shard_rows": n}
    manifest = Manifest("made", "made", {str(HERE): 48}, "float32", settings, names, (Part("x", n, 400, ""),), True)
    features = describe(Planted(directions), ActivationStore(manifest, [shard]), seed=seed)
    features.words = [f" w{i}" for i in range(WORDS)]
    return features


def told(feature: Shown) -> str:
    """The truth about those ON a token, in words."""
    return f"the word w{10 + feature.number}"


# --- what an explanation predicts ---------------------------------------------------------------------------------


def test_explanations_predict_planted_features_and_those_of_others_or_random_words_do_not():
    """Row C13: AUROC of at least 0.9, and of 0.5 +- 0.05 where labels are shuffled, on contexts held out."""
    done = [one for i in range(WORLDS) for one in explain(world(SEED + i), PLANTED, seed=SEED + i)]
    assert not [one.problem for one in done if one.problem]
    for test in ("detection", "fuzzing"):
        scores = [getattr(one, test).auroc for one in done]
        assert np.mean([score.value for score in scores]) >= 0.9
        assert np.mean([score.shuffled.value for score in scores]) == pytest.approx(0.5, abs=0.05)
        chance = np.array([score.random.value for score in scores])
        # It may lie a little below: where a feature is active its trigger stands, and no word drawn at random.
        assert chance.mean() < 0.5 + 4 * chance.std() / len(chance) ** 0.5
        assert all(score.low < score.value <= score.high for score in scores)
        assert np.mean([score.low for score in scores]) > np.mean([score.shuffled.high for score in scores])


def test_a_text_is_judged_by_the_words_that_it_mentions():
    done = explain(world(SEED), ON, explainer=told, seed=SEED)
    assert [one.text for one in done] == [f"the word w{10 + i}" for i in ON]
    for one in done:
        for test in (one.detection, one.fuzzing):
            assert test.auroc.value >= 0.9
            assert test.accuracy.value >= 0.9
    assert mentions("Sea, or 'ships'.", [" sea", "ship", ",", " Ships", ""]) == [1, 0, 0, 1, 0]


def test_the_template_names_what_was_planted():
    contexts = Contexts(world(SEED), SEED)
    assert all(template(Shown(contexts, i)).text.startswith(f"on ' w{10 + i}'") for i in ON)
    assert all(f"after ' w{10 + i}'" in template(Shown(contexts, i)).text for i in AFTER_ONE)
    assert all(template(Shown(contexts, i)).text.startswith(f"on ' w{40 + i}'") for i in PAIR)


def test_a_feature_of_nothing_is_not_explained_by_what_was_shown_of_it():
    done = [explain(world(SEED + i), [0, NOTHING], seed=SEED + i)[NOTHING] for i in range(2 * WORLDS)]
    assert np.mean([one.detection.auroc.value for one in done]) == pytest.approx(0.5, abs=0.15)
    assert np.mean([one.fuzzing.auroc.value for one in done]) == pytest.approx(0.5, abs=0.15)


def test_no_document_is_both_shown_and_held_out_and_silent_contexts_are_silent():
    features = world(SEED)
    contexts = Contexts(features, SEED)
    rows = features.store.rows(slice(None))
    codes = features.dictionary.encode(rows.acts[HERE]) > 0
    for number in (0, 8, 16, NOTHING):
        shown = Shown(contexts, number)
        seen = [*shown.top, *shown.sample, *shown.silent]
        active, silent = contexts.active(number), contexts.silent(number, held=True)
        assert not {one.doc for one in seen} & {one.doc for one in (*active, *silent)}
        assert len(shown.sample) + len(active) == len(features[number].sample)
        for one in (*seen, *active, *silent):
            row = int(((rows.doc == one.doc) & (rows.pos == one.pos)).nonzero())
            around = [i for i in range(row - BEFORE, row + AFTER + 1) if 0 <= i < len(codes) and rows.doc[i] == one.doc]
            assert one.words == [features.words[int(rows.tokens[i])] for i in around]
            assert around[one.at] == row
            assert [act > 0 for act in one.acts] == codes[around, number].tolist()
        assert all(max(one.acts) == 0 for one in (*shown.silent, *silent))
        both = [*shown.sample, *shown.silent]
        words = [(word, act > 0) for one in both for word, act in zip(one.words, one.acts, strict=True)]
        token, share, of_token = shown.tokens.iloc[0]
        assert share == words.count((token, True)) / sum(act for _, act in words)
        assert of_token == words.count((token, True)) / (words.count((token, True)) + words.count((token, False)))


def test_the_same_seed_gives_the_same_and_a_table_has_a_line_for_each_score():
    done = explain(world(SEED), [0, 8, DEAD], seed=SEED)
    table = done.to_frame()
    assert table.equals(explain(world(SEED), [0, 8, DEAD], seed=SEED).to_frame())
    assert table["feature"].tolist() == [0] * 4 + [8] * 4 + [DEAD]
    assert table["test"].tolist()[:4] == ["detection"] * 2 + ["fuzzing"] * 2
    scored = table[table["problem"] == ""]
    assert scored[["value", "low", "high", "shuffled", "random"]].notna().all(axis=None)
    assert len(done) == 3
    assert done[8].contexts == scored["contexts"].iloc[-1]
    with pytest.raises(KeyError, match="Feature 3 was not explained; those that were: 0, 8, 21"):
        done[3]


# --- scores ---------------------------------------------------------------------------------------------------


def test_scores_are_those_of_scikit_learn():
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    random = np.random.default_rng(SEED)
    for _ in range(20):
        yes, no = random.integers(0, 6, 12) / 5, random.integers(0, 5, 17) / 5
        truth, scores = np.repeat([1, 0], [12, 17]), np.concatenate([yes, no])
        assert auroc(yes, no).value == pytest.approx(roc_auc_score(truth, scores))
        assert accuracy(yes, no).value == pytest.approx(balanced_accuracy_score(truth, scores >= 0.5))


@pytest.mark.parametrize("apart", [0.0, 0.5, 1.5, 3.0])
def test_an_interval_holds_the_truth_as_often_as_it_says(apart):
    from scipy.stats import norm

    random = np.random.default_rng(SEED)
    area, right = norm.cdf(apart / np.sqrt(2)), norm.cdf(apart / 2)
    areas = [auroc(random.normal(apart, 1, 20), random.normal(0, 1, 20)) for _ in range(400)]
    answers = [
        accuracy(random.normal(0.5 + apart / 2, 1, 20), random.normal(0.5 - apart / 2, 1, 20)) for _ in range(400)
    ]
    means = [mean_of(random.uniform(size=20) ** (apart + 1)) for _ in range(400)]
    for truth, found in ((area, areas), (right, answers), (1 / (apart + 2), means)):
        # Of 400 intervals that hold the truth 95 times in 100, fewer than 0.91 do so in one run of ten thousand.
        assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.91
    assert all(0 <= one.low <= one.value <= one.high <= 1 for one in (*areas, *answers, *means))
    certain = auroc(np.ones(20), np.zeros(20))
    assert (certain.value, certain.high) == (1, 1)
    assert certain.low < 1


def test_fuzzing_marks_as_many_silent_tokens_as_active_ones():
    contexts = [one for one in world(SEED)[16].sample if 0 < sum(act > 0 for act in one.acts) < len(one.acts)]
    truth = [(np.array(one.acts) > 0).astype(float) for one in contexts]
    right, wrong = fuzzing(truth, contexts, SEED)
    assert right.tolist() == [1] * len(contexts)
    assert wrong.tolist() == [0] * len(contexts)


def test_masks_of_planted_spans_cover_them():
    """Row C13: IoU of at least 0.7 with the annotated span."""
    for i in SPAN:
        score = localise(world(SEED)[i], f"part={'abcd'[i - 16]}", seed=SEED)
        assert score.value >= 0.7
        assert score.low > score.shuffled.high
        assert score.low > score.random.high
    assert localise(world(SEED)[0], "part", seed=SEED).value < 0.3


def test_localise_is_what_a_naive_count_says(monkeypatch):
    monkeypatch.setattr("workbench.features.spans.DOCUMENTS", 10**6)
    features = world(SEED)
    rows = features.store.rows(slice(None))
    for i, label, code in ((16, "part=a", [1]), (NOTHING, "part", [1, 2, 3, 4]), (3, "word=high", [2])):
        active = features.dictionary.encode(rows.acts[HERE])[:, i] > 0
        holds = torch.isin(rows.labels[label.split("=")[0]], torch.tensor(code))
        docs = {*rows.doc[holds].tolist(), *(one.doc for one in features[i].sample)}
        shares = []
        for doc in docs:
            a, b = ({int(j) for j in (of & (rows.doc == doc)).nonzero()} for of in (active, holds))
            shares.append(len(a & b) / len(a | b))
        assert localise(features[i], label).value == pytest.approx(np.mean(shares))


# --- explainers that fail, and inputs that are not ----------------------------------------------------------------


def hang(feature: Shown) -> str:
    threading.Event().wait(20)
    return "too late"


def stop(feature: Shown) -> str:
    raise SystemExit("enough")


BAD = {
    lambda feature: 1 / 0: "the explainer raised ZeroDivisionError: division by zero",
    hang: "the explainer gave no answer within 0.3 s",
    stop: "the explainer raised SystemExit: enough",
    lambda feature: 7: "the explainer returned int, neither an Explanation nor a text",
    lambda feature: " ": "the explainer returned an empty text, neither",
    lambda feature: Explanation(None, mentions): "the explainer returned Explanation, neither",
    lambda feature: Explanation("short", lambda words: [1.0]): "the judge returned no number from 0 to 1 for each of",
    lambda feature: Explanation("nan", lambda words: [np.nan] * len(words)): "the judge returned no number",
    lambda feature: Explanation("ten", lambda words: [10] * len(words)): "the judge returned no number",
    lambda feature: Explanation("text", lambda words: words): "the judge raised ValueError: could not convert",
    lambda feature: Explanation("grad", lambda words: torch.ones(len(words), requires_grad=True)): "RuntimeError",
    lambda feature: Explanation("loud", lambda words: {}["x"]): "the judge raised KeyError: 'x'",
}


@pytest.mark.parametrize("number", range(len(BAD)))
def test_a_failing_explainer_is_marked_and_the_run_goes_on(as_user, number):
    bad, words = list(BAD.items())[number]
    begun = time.monotonic()
    done = explain(
        world(SEED),
        [0, 1, 2, 3, 4],
        explainer=lambda feature: bad(feature) if feature.number == 2 else told(feature),
        timeout=0.3 if bad is hang else 20,
        seed=SEED,
    )
    assert re.search(words, done[2].problem)
    assert (done[2].detection, done[2].fuzzing) == (None, None)
    scored = [one for one in done if not one.problem]
    assert [one.feature for one in scored] == [0, 1, 3, 4]
    assert all(one.detection.auroc.value >= 0.9 for one in scored)
    assert time.monotonic() - begun < 15


def test_what_cannot_be_judged_is_said_so():
    done = explain(world(SEED), [DEAD, ALWAYS, RARE, 0, 1], seed=SEED)
    assert "active in 0 and silent in" in done[DEAD].problem
    assert "silent in 0 held-out contexts" in done[ALWAYS].problem
    assert "5 of either are needed" in done[RARE].problem
    assert not done[0].problem
    alone = explain(world(SEED), [DEAD, 0], seed=SEED)
    assert alone[0].problem == "no other feature has an explanation to hold against its contexts"
    assert alone[0].text.startswith("on ' w10'")
    assert alone[0].detection is None


def test_questions_that_cannot_be_are_refused(as_user):
    features = world(SEED)
    for numbers in ([3], 3, [3, 3], []):
        with pytest.raises(ValueError, match="explain takes two or more different features, got"):
            explain(features, numbers)
    with pytest.raises(IndexError, match="numbered 0 to 23, got 24"):
        explain(features, [0, 24])
    with pytest.raises(ValueError, match="timeout must be above 0 seconds, got 0"):
        explain(features, [0, 1], timeout=0)
    for label, words in (
        ("parts", "no label 'parts'; its labels are part, word"),
        ("part=z", "'part' has no value 'z'; it has a, b, c, d"),
    ):
        with pytest.raises(ValueError, match=words):
            localise(features[0], label)
    with pytest.raises(ValueError, match="Feature 21 is active nowhere"):
        localise(features[DEAD], "part")
    loose = FeatureSet(
        features.columns,
        rows=features.rows,
        places=features.places,
        labels=features.labels,
        words=features.words,
        provenance=features.provenance,
    )
    with pytest.raises(ValueError, match="give load_features dictionary= and store="):
        explain(loose, [0, 1])
    with pytest.raises(ValueError, match="give load_features dictionary= and store="):
        localise(loose[0], "part")
    loose.attached(features.dictionary, features.store).rows = 7
    with pytest.raises(ValueError, match=r"described on 7 rows and this store has \d+; give theirs"):
        explain(loose, [0, 1])


def test_the_examples_in_the_text_are_right():
    for module in ("explanation", "asked"):
        assert doctest.testmod(sys.modules[f"workbench.features.{module}"]).failed == 0


# --- language models ------------------------------------------------------------------------------------------


def knows(prompt: str) -> str:
    """A writer that finds the word common to all marked texts, and knows it again."""
    if "<<" in prompt:
        lines = [set(re.findall(r"<< ?(\w+)>>", line)) for line in prompt.split("and on no")[0].splitlines()]
        return " " + min(set.intersection(*(line for line in lines if line))) + " "
    word = re.search(r"active on: (\w+)", prompt)[1]
    return ", ".join(re.findall(rf"(\d+): {word}\n", prompt)) or "None."


def test_any_writer_of_text_explains_and_judges():
    explainer, judge = asked(knows)
    done = explain(world(SEED), ON, explainer=explainer, judge=judge, seed=SEED)
    assert [one.text for one in done] == [f"w{10 + i}" for i in ON]
    assert all(one.detection.auroc.value >= 0.9 for one in done)
    assert all(one.fuzzing.accuracy.value >= 0.9 for one in done)


@pytest.mark.parametrize(("answer", "scores"), [("2", [0, 1, 0]), ("1, 3.", [1, 0, 1]), ("None", [0, 0, 0])])
def test_an_answer_is_read_as_numbers(answer, scores):
    assert asked(lambda prompt: answer)[1]("rain", ["a", "b", "c"]).tolist() == scores


@pytest.mark.parametrize("answer", ["4", "0", "", "the second"])
def test_an_answer_without_fitting_numbers_is_refused(answer):
    with pytest.raises(ValueError, match='asked for numbers from 1 to 3 or "none", it wrote'):
        asked(lambda prompt: answer)[1]("rain", ["a", "b", "c"])


def test_what_cannot_write_is_refused(as_user):
    with pytest.raises(TypeError, match="takes a function from prompt to answer, or a model, got int"):
        asked(3)


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A random model that reads any text, byte by byte, as a Hugging Face directory."""
    import transformers
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    directory = tmp_path_factory.mktemp("writer")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(BPE({one: i for i, one in enumerate([*letters, "<eos>"])}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<eos>", eos_token="<eos>", pad_token="<eos>"
    )
    torch.manual_seed(SEED)
    config = transformers.GPT2Config(
        vocab_size=257, n_embd=16, n_layer=1, n_head=2, n_positions=4096, bos_token_id=256, eos_token_id=256
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def test_a_local_model_is_asked_in_its_own_format(writer):
    from workbench.models import load_model

    model = load_model(writer, device="cpu")
    feature = Shown(Contexts(world(SEED), SEED), 0)
    asks = []
    asked(lambda prompt: asks.append(prompt) or "none")[0](feature)
    (prompt,) = asks
    for kind in ("plain", "chat"):
        if kind == "chat":
            model.tokenizer.chat_template = (
                "{% for m in messages %}<user>{{ m.content }}</user>{% endfor %}"
                "{% if add_generation_prompt %}<model>{% endif %}"
            )
            prompt = f"<user>{prompt}</user><model>"
        ids = torch.tensor([[256, *model.tokenizer.encode(prompt, add_special_tokens=False)]])
        asked_for = ids.shape[1]
        while ids.shape[1] < asked_for + 5 and (ids.shape[1] == asked_for or ids[0, -1] != 256):  # the end of a text
            ids = torch.cat([ids, model(ids)[:, -1].argmax(-1, keepdim=True)], 1)
        found = asked(model, max_new_tokens=5)[0](feature)
        assert found == model.tokenizer.decode(ids[0, asked_for:], skip_special_tokens=True).strip()


def test_a_local_model_that_writes_nonsense_is_marked(writer):
    explainer, judge = asked(writer, max_new_tokens=3)
    done = explain(world(SEED), [0, 1, 2], explainer=explainer, judge=judge, seed=SEED)
    assert len(done) == 3
    assert all(one.problem.startswith(("the explainer ", "the judge ")) for one in done)
