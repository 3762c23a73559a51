"""What features do, against naive counts over the same rows and against what was planted."""

import itertools
import logging
import random
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import BOS, N_LAYERS, tokens_of
from torch import Tensor

from workbench.activations import ActivationStore
from workbench.activations.shards import Manifest, MemoryShard, Part
from workbench.dictionaries import Codes, TopK, load_dictionary, spliced
from workbench.features import describe, load_features
from workbench.features.describe import _word
from workbench.features.effects import loss_gradients
from workbench.features.feature import AFTER, BEFORE
from workbench.features.keep import Best
from workbench.features.matches import Labels
from workbench.features.sketch import SIZE, Sketch
from workbench.features.tally import Tally
from workbench.language.documents import join
from workbench.models import Site, edited, load_model, record, tokenize
from workbench.models.readout import readout

SEED = random.SystemRandom().randrange(2**20)
HERE = Site(0)
TOPICS, KINDS = ("none", "sea", "city", "farm"), ("none", "noun", "verb", "name", "stop", "rare")


@pytest.fixture(autouse=True)
def _told():
    logging.warning("SEED = %s", SEED)


class Given:
    """A foreign dictionary: a code for each coordinate, where it is positive."""

    def __init__(self, d: int):
        self.W_dec = torch.eye(d)

    def encode(self, x: Tensor) -> Tensor:
        return x.relu()


def store_of(acts: Tensor, *, tokens=None, doc=None, pos=None, labels=None, names=None) -> ActivationStore:
    """A store in memory of what is given."""
    n = len(acts)
    columns = {
        "token": tokens if tokens is not None else torch.zeros(n),
        "doc": doc if doc is not None else torch.zeros(n),
    }
    columns["pos"] = pos if pos is not None else torch.arange(1, n + 1)
    columns |= {f"label.{name}": codes for name, codes in (labels or {}).items()}
    columns = {name: column.to(torch.int32) for name, column in columns.items()} | {str(HERE): acts}
    settings = {"keep_bos": False, "batch_tokens": 1, "shard_rows": n}
    manifest = Manifest(
        "made", "made", {str(HERE): acts.shape[1]}, "float32", settings, names or {}, (Part("x", n, 1, ""),), True
    )
    return ActivationStore(manifest, [MemoryShard(columns)])


@pytest.fixture(scope="module")
def world():
    """Documents of words and topics; what coordinates hold is known. Their rows, and the store."""
    g = torch.Generator().manual_seed(SEED)
    lengths = torch.randint(3, 70, (150,), generator=g)
    doc = torch.repeat_interleave(torch.arange(150), lengths)
    n = len(doc)
    pos = torch.cat([torch.arange(1, length + 1) for length in lengths.tolist()])
    tokens = (40 * torch.rand(n, generator=g) ** 2).long()
    topic = torch.randint(1, 4, (150,), generator=g)[doc]
    kind = tokens % len(KINDS)
    acts = torch.randn(n, 12, generator=g) - 1.5
    acts[:, 0] = torch.where(topic == 2, 1 + torch.rand(n, generator=g), -1)  # a value
    acts[:, 1] = torch.where((kind == 1) | (kind == 3), 1 + torch.rand(n, generator=g), -1)  # a union
    acts[:, 2] = torch.where((topic == 1) & (kind == 2), 1 + torch.rand(n, generator=g), -1)  # a pair
    acts[:, 3] = -1  # never
    acts[:, 4] = torch.where(torch.rand(n, generator=g) < 20 / n, 3 + torch.rand(n, generator=g), -1)  # rare
    acts[:, 5] = torch.where(torch.rand(n, generator=g) < 0.8, acts[:, 4] * 2, acts[:, 5] - 1)  # with it
    store = store_of(
        acts,
        tokens=tokens,
        doc=doc,
        pos=pos,
        labels={"topic": topic, "kind": kind},
        names={"topic": TOPICS, "kind": KINDS},
    )
    return store, store.rows(slice(None)), describe(Given(12), store, seed=SEED)


# --- one pass against naive counts ---------------------------------------------------------------------------


def test_counts_means_and_extremes_are_exact(world):
    store, rows, features = world
    z = rows.acts[HERE].relu().double()
    count = (z > 0).sum(0)
    assert features.column("count").tolist() == count.tolist()
    assert torch.allclose(features.column("mean").double(), z.sum(0) / count.clamp_min(1), atol=1e-5)
    assert torch.allclose(features.column("max").double(), z.amax(0))
    assert features.table["density"].tolist() == pytest.approx((count / len(store)).tolist())
    assert [feature.dead for feature in features] == (count == 0).tolist()
    assert [feature.dense for feature in features] == (count > 0.1 * len(store)).tolist()


def test_a_phrase_is_found_where_words_have_no_spaces_of_their_own(world):
    features = world[2]
    kept, features.words = features.words, [f"w{i}" if i else "." for i in range(len(features.words))]
    example = next(feature.top[0] for feature in features if not feature.dead and len(feature.top[0].words) > 1)
    assert len(features.search(text=" ".join(example.words).replace(" .", ".")))
    assert not len(features.search(text="".join(example.words[:2]).replace(".", "w")))
    features.words = kept


def test_a_word_has_the_space_that_its_piece_stands_for():
    class Pieces:
        def decode(self, tokens):
            return ["the", " cat", "s", "."][tokens[0]]

        def convert_ids_to_tokens(self, token):
            return ["▁the", "Ġcat", "s", "."][token]

    assert [_word(Pieces(), token) for token in range(4)] == [" the", " cat", "s", "."]


@pytest.mark.parametrize("texts", [1, 2, 5])
def test_a_few_texts_are_enough(tiny_model, texts):
    store = ActivationStore.collect(tiny_model, tokens_of(texts, 12), [Site(1)])
    dictionary = TopK(store.rows(slice(None)).acts[Site(1)].shape[1], 40, k=3, sites_in=Site(1))
    features = describe(dictionary, store, tiny_model)
    assert len(features) == 40
    dead = next(feature for feature in features if feature.dead)
    with pytest.raises(ValueError, match=r"has 0 examples, .* active nowhere there is no effect to measure"):
        dead.effect(tiny_model)
    alive = next(feature for feature in features if not feature.dead)
    with pytest.raises(ValueError, match="got n=0"):
        alive.effect(tiny_model, n=0)


def test_another_model_or_dictionary_is_refused(tiny_model, loaded):
    store = ActivationStore.collect(tiny_model, tokens_of(6, 12), [Site(1)])
    d = store.rows(slice(None)).acts[Site(1)].shape[1]
    features = describe(TopK(d, 40, k=3, sites_in=Site(1)), store, tiny_model)
    with pytest.raises(ValueError, match="These features are of another model"):
        features.search("w1 w2", model=loaded["llama"])
    with pytest.raises(ValueError, match=r"read at '1\.resid_post', and this dictionary reads '0\.resid_post'"):
        features.attached(TopK(d, 40, k=3, sites_in=Site(0)))
    with pytest.raises(ValueError, match=r"got shape .*, not all finite"):
        features.search(direction=torch.full((d,), 1.0).index_fill(0, torch.tensor([0, 1]), torch.nan))


def test_tokens_and_places_are_counted_exactly(world):
    _, rows, features = world
    active = rows.acts[HERE] > 0
    seen = Counter(rows.tokens.tolist())
    for i in (0, 6):
        met = Counter(rows.tokens[active[:, i]].tolist())
        table = features[i].tokens
        assert (table["share"] * features[i].count).round().tolist() == [n for _, n in met.most_common(10)]
        for token, of_token in zip(table["token"], table["of_token"], strict=True):
            number = int(token[1:])
            assert of_token == pytest.approx(met[number] / seen[number])
        places = features[i].places
        for low, high, share, of_place in places.itertuples(index=False):
            there = (rows.pos >= low) & (rows.pos <= high)
            assert share == pytest.approx(int((active[:, i] & there).sum()) / features[i].count)
            assert of_place == pytest.approx(float(active[there, i].double().mean()))


def test_quantiles_and_histogram_are_those_of_the_positive_activations(world):
    _, rows, features = world
    z = rows.acts[HERE][:, 2]
    values = np.sort(z[z > 0].numpy())
    ranks = [-(-i * len(values) // 20) for i in range(1, 21)]
    assert features[2].quantiles.iloc[1:].tolist() == pytest.approx([float(values[rank - 1]) for rank in ranks])
    edges = np.linspace(0, values.max(), 41)
    edges[-1] += 1e-6
    assert features[2].histogram.tolist() == pytest.approx(
        (np.histogram(values, edges)[0] / len(values)).tolist(), abs=1e-3
    )
    assert features[2].histogram.sum() == pytest.approx(1)


def test_top_examples_are_the_strongest_and_show_their_text(world):
    _, rows, features = world
    z = rows.acts[HERE].relu()
    for i in (0, 4, 7):
        best = z[:, i].topk(min(12, int((z[:, i] > 0).sum())))
        top = features[i].top
        assert [one.value for one in top] == pytest.approx(best.values.tolist())
        for one, row in zip(top, best.indices.tolist(), strict=True):
            assert (one.doc, one.pos) == (int(rows.doc[row]), int(rows.pos[row]))
            near = [
                at for at in range(max(0, row - BEFORE), min(len(z), row + AFTER + 1)) if rows.doc[at] == rows.doc[row]
            ]
            assert one.words == [f"#{token}" for token in rows.tokens[near].tolist()]
            assert one.acts == pytest.approx(z[near, i].tolist(), rel=2e-3)
            assert near[one.at] == row


def test_a_sample_is_drawn_from_all_and_falls_into_groups_by_quantile_or_interval(world):
    _, rows, features = world
    z = rows.acts[HERE].relu()
    values = set(z[:, 6][z[:, 6] > 0].tolist())
    sample = features[6].sample
    assert len({(one.doc, one.pos) for one in sample}) == len(sample) == 32
    assert {one.value for one in sample} <= values
    groups = features[6].groups()
    assert [group.share for group in groups] == [0.2] * 5
    assert all(low.low <= one.value <= low.high for low in groups for one in low.examples)
    assert sum(len(group.examples) for group in features[6].groups(each=40)) == 32
    steps = features[6].groups("interval")
    assert [group.high for group in steps] == pytest.approx([features[6].max * i / 5 for i in range(5, 0, -1)])
    inside = [((z[:, 6] > group.low) & (z[:, 6] <= group.high)).sum() / len(values) for group in steps]
    assert [group.share for group in steps] == pytest.approx([float(share) for share in inside], abs=0.05)


def test_company_and_correlation_are_exact_where_all_are_sampled(world):
    _, rows, features = world
    z = rows.acts[HERE].relu().double().numpy()
    company = features[4].company.set_index("feature")["phi"]
    assert company.index[0] == 5
    for other, phi in company.items():
        assert phi == pytest.approx(np.corrcoef(z[:, 4] > 0, z[:, other] > 0)[0, 1], abs=1e-4)
    for other, pearson in features[4].alike.set_index("feature")["pearson"].items():
        assert pearson == pytest.approx(np.corrcoef(z[:, 4], z[:, other])[0, 1], abs=1e-4)


def test_neighbours_are_those_of_the_whole_table_of_cosines():
    class Drawn(Given):
        def __init__(self):
            self.W_dec = torch.randn(40, 12, generator=torch.Generator().manual_seed(SEED))

        def encode(self, x):
            return Codes(torch.ones(len(x), 1), torch.arange(len(x))[:, None] % 40, 40)

    features = describe(Drawn(), store_of(torch.zeros(400, 12)))
    unit = F.normalize(Drawn().W_dec, dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(-2)
    for i in (0, 39):
        near = features[i].near
        assert near["feature"].tolist() == cosines[i].topk(8).indices.tolist()
        assert near["cosine"].tolist() == pytest.approx(cosines[i].topk(8).values.tolist(), abs=1e-5)


def test_planted_labels_are_found_and_scored_on_rows_they_were_not_chosen_on(world):
    _, _, features = world
    value, union, pair = features[0].matches[0], features[1].matches[0], features[2].matches[0]
    assert (value.kind, value.name, value.f1) == ("value", "topic=city", 1)
    assert (union.kind, set(union.name.split(" or ")), union.f1) == ("union", {"kind=noun", "kind=name"}, 1)
    assert (pair.kind, set(pair.name.split(" and ")), pair.mcc) == ("both", {"topic=sea", "kind=verb"}, 1)
    noise = features[8].matches[0]
    assert abs(noise.mcc) < 0.1
    assert features[3].matches[0].f1 == 0


def test_scores_of_a_label_are_those_of_a_naive_table():
    g = torch.Generator().manual_seed(SEED)
    labels, naive = Labels(3, {"a": ("", "x", "y"), "b": ("", "p", "q", "r")}), []
    for half in (0, 1, 0, 1):
        codes = {"a": torch.randint(3, (500,), generator=g), "b": torch.randint(4, (500,), generator=g)}
        active = torch.rand(500, 3, generator=g) < torch.tensor([0.1, 0.5, 0.9]) * (
            0.5 + 0.5 * (codes["a"] == 1)[:, None]
        )
        features, row = active.T.nonzero(as_tuple=True)
        labels.add(features, row, codes, half=half)
        if half:
            naive.append((codes, active))
    matches = labels.matches()
    a, b = (torch.cat([codes[name] for codes, _ in naive]) for name in "ab")
    active = torch.cat([active for _, active in naive]).double()
    for i in range(3):
        number = int(matches["label"][i])
        holds = (a == number if number < 3 else b == number - 3).double()
        hits = (holds * active[:, i]).sum()
        assert float(matches["label_precision"][i]) == pytest.approx(float(hits / active[:, i].sum()))
        assert float(matches["label_recall"][i]) == pytest.approx(float(hits / holds.sum()))
        assert float(matches["label_mcc"][i]) == pytest.approx(np.corrcoef(holds, active[:, i])[0, 1], abs=1e-5)


# --- its parts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "draw", [torch.randn, torch.rand, lambda *n, generator: torch.randn(*n, generator=generator).exp()]
)
def test_a_quantile_is_right_to_half_a_per_cent_of_the_rank(draw):
    g = torch.Generator().manual_seed(SEED)
    lengths = [1, SIZE - 1, SIZE, 3000, 60_000]
    values = [draw(n, generator=g) for n in lengths]
    values[3] = values[3].round(decimals=1)  # many alike
    values[4] = values[4].sort().values  # the worst order
    sketch = Sketch(len(lengths), SEED)
    for part in range(7):
        cut = [one.tensor_split(7)[part] for one in values]
        features = torch.cat([torch.full((len(one),), i) for i, one in enumerate(cut)])
        sketch.add(features, torch.cat(cut))
    assert sketch.count.tolist() == lengths
    q = torch.linspace(0.01, 0.99, 99)
    for i, found in enumerate(sketch.at(q)):
        below = (values[i][:, None] < found).double().mean(0)
        upto = (values[i][:, None] <= found).double().mean(0)
        least = 0.005 if lengths[i] >= SIZE else 1e-6
        assert (torch.maximum(below - q, q - upto) <= least).all(), i
    edges = torch.stack([one.quantile(torch.tensor([0.0, 0.3, 0.9, 1.0])) for one in values])
    edges[:, 0] -= 1
    shares = sketch.shares(edges)
    naive = torch.stack(
        [
            torch.stack([((v > a) & (v <= b)).float().mean() for a, b in itertools.pairwise(e)])
            for v, e in zip(values, edges, strict=True)
        ]
    )
    assert (shares - naive).abs().max() <= 0.01


def test_the_best_of_a_stream_keep_what_belongs_to_them():
    g = torch.Generator().manual_seed(SEED)
    best, seen = Best(5, 4), []
    for _ in range(6):
        features = torch.randint(5, (37,), generator=g).sort().values
        scores = torch.randn(37, generator=g)
        number = len(seen) + torch.arange(37)
        best.add(
            features,
            scores,
            lambda i, number=number, scores=scores: {"number": number[i], "pair": scores[i, None].repeat(1, 2)},
        )
        seen += list(zip(features.tolist(), scores.tolist(), strict=True))
    for feature in range(5):
        naive = sorted(((s, i) for i, (f, s) in enumerate(seen) if f == feature), reverse=True)[:4]
        order = best.scores[feature].argsort(descending=True)
        assert best.of["number"][feature, order].tolist() == [i for _, i in naive]
        assert best.of["pair"][feature, order, 1].tolist() == pytest.approx([s for s, _ in naive])


@pytest.mark.parametrize("whole", [2**24, 60, 0])
def test_tokens_are_tallied_all_at_once_or_pair_by_pair(monkeypatch, whole):
    monkeypatch.setattr("workbench.features.tally.WHOLE", whole)
    g = torch.Generator().manual_seed(SEED)
    tally, naive = Tally(3), Counter()
    for _ in range(20):
        features, tokens = torch.randint(3, (200,), generator=g), (30 * torch.rand(200, generator=g) ** 3).long()
        tally.add(features, tokens)
        naive.update(zip(features.tolist(), tokens.tolist(), strict=True))
    tokens, counts = tally.top(5)
    for feature in range(3):
        expected = sorted((n for (f, _), n in naive.items() if f == feature), reverse=True)[:5]
        assert counts[feature].tolist() == expected
        assert [naive[feature, token] for token in tokens[feature].tolist()] == expected


def test_frequent_tokens_survive_when_pairs_are_forgotten(monkeypatch):
    monkeypatch.setattr("workbench.features.tally.WHOLE", 0)
    monkeypatch.setattr("workbench.features.tally.KEPT", 10)
    g = torch.Generator().manual_seed(SEED)
    tally = Tally(4)
    for _ in range(50):
        rare = torch.randint(8, 100_000, (200,), generator=g)
        tally.add(torch.randint(4, (200,), generator=g), rare)
        tally.add(torch.arange(4).repeat(20), torch.full((80,), 7))
    tokens, counts = tally.top(1)
    assert tokens[:, 0].tolist() == [7] * 4
    assert counts[:, 0].tolist() == [1000] * 4


# --- effects -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    """The shipped model with a dictionary, and what its features do on a little of the language."""
    from workbench.language import Language

    model, dictionary = load_model("tiny"), load_dictionary("tiny")
    store = ActivationStore.collect(model, Language(0).documents(300, split="test", seed=SEED), [Site(2)])
    return model, dictionary, store, describe(dictionary, store, model)


@pytest.mark.parametrize("architecture", ["gpt2", "neox", "llama"])
def test_the_readout_is_the_mean_derivative_of_the_logits(model_directories, architecture):
    model = load_model(model_directories[architecture])
    last = Site(N_LAYERS - 1)
    resid = record(model, tokens_of(2, 6), [last])[last].flatten(0, 1)
    direction = torch.randn(resid.shape[1], generator=torch.Generator().manual_seed(SEED))
    h = (
        1e-3 * float(resid.norm(dim=1).mean()) / float(direction.norm())
    )  # a norm may compute in float32 whatever is given
    there, back = (model.ln_final((resid + sign * h * direction)[None])[0] @ model.W_U for sign in (1, -1))
    expected = ((there - back).double() / (2 * h)).mean(0).float()
    ours = direction @ readout(model, resid)
    assert (ours - expected).norm() < 1e-2 * expected.norm()


def test_the_first_order_effect_is_the_derivative_of_the_loss(tiny):
    """Of a code, when it is scaled a little: by central differences through the spliced model."""
    model, dictionary, _, _ = tiny
    tokens = tokenize(model, "Today Mia is at the market. She wants some new statues.")
    (gradient,) = loss_gradients(model, [tokens[0]], Site(2))
    codes = dictionary.encode(record(model, tokens, [Site(2)])[Site(2)])
    strongest = torch.bincount(codes.indices.flatten(), codes.values.flatten(), 1024).topk(5).indices.tolist()

    def loss(feature: int, scale: float) -> float:
        def change(codes: Codes) -> Codes:
            return Codes(torch.where(codes.indices == feature, scale * codes.values, codes.values), codes.indices, 1024)

        with edited(model, spliced(dictionary, change=change)):
            return float(F.cross_entropy(model(tokens)[0, :-1].double(), tokens[0, 1:], reduction="sum"))

    for feature in strongest:
        numeric = (loss(feature, 1 - 1e-2) - loss(feature, 1 + 1e-2)) / 2e-2
        here = codes.dense()[0, :, feature]
        ours = -float((here * (gradient @ dictionary.W_dec[feature])).sum())
        assert ours == pytest.approx(numeric, rel=0.05, abs=2e-3)


def test_the_effect_of_a_feature_is_that_of_the_model_without_it(tiny):
    model, dictionary, store, features = tiny
    number = int(features.table["loss_effect"].argmax())
    effect = features[number].effect(model, n=2)
    texts = {}
    for one in features[number].sample[:2]:
        rows = store.rows((store.rows(slice(None), ()).doc == one.doc), ())
        texts[one.doc] = torch.cat([torch.tensor([model.tokenizer.bos_token_id]), rows.tokens])
    loss = kl = tokens = 0
    for text in texts.values():
        acts = record(model, text[None], [Site(2)])[Site(2)]
        z = dictionary.encode(acts).dense()[0, :, number]
        plain = model(text[None])[0].log_softmax(-1)
        with edited(model, {Site(2): lambda acts, context, z=z: acts - z[None, :, None] * dictionary.W_dec[number]}):
            off = model(text[None])[0].log_softmax(-1)
        loss += float((plain - off)[:-1].gather(1, text[1:, None]).sum())
        kl += float((plain.exp() * (plain - off)).sum(-1)[z > 0].sum())
        tokens += int((z > 0).sum())
    assert effect.tokens == tokens
    assert effect.loss == pytest.approx(loss / tokens, abs=1e-3)
    assert effect.kl == pytest.approx(kl / tokens, abs=1e-3)
    assert effect.logits["change"].is_monotonic_decreasing


# --- searches ------------------------------------------------------------------------------------------------


def test_a_prompt_finds_the_features_that_are_active_on_it(tiny):
    model, dictionary, _, features = tiny
    prompt = "Today Mia is at the market."
    codes = dictionary.encode(record(model, tokenize(model, prompt), [Site(2)])[Site(2)]).dense()[0, 1:]
    found = features.search(prompt, model=model)
    best = codes.amax(0).topk(10)
    assert found["activation"].tolist() == pytest.approx(best.values.tolist())
    assert found["feature"].tolist() == best.indices.tolist()
    words = [model.tokenizer.decode([token]) for token in tokenize(model, prompt)[0, 1:].tolist()]
    assert found["on"].tolist() == [words[int(codes[:, i].argmax())] for i in found["feature"]]
    rare = features.search(prompt, model=model, by="quantile", n=3)
    assert rare["quantile"].between(0, 1).all()
    saved = features.search(prompt, model=model, by="loss", n=3)
    assert saved["loss saved"].is_monotonic_decreasing


def test_a_direction_a_label_and_a_text_find_theirs(tiny, world):
    _, dictionary, _, features = tiny
    assert features.search(direction=dictionary.W_dec[17])["feature"][0] == 17
    assert features.search(direction=3 * dictionary.W_dec[17])["cosine"][0] == pytest.approx(1)
    assert world[2].search(label="topic=city")["feature"][0] == 0
    assert world[2].search(label="city")["f1"][0] == 1
    assert 0 in world[2].search(label="topic")["feature"].tolist()
    shown = join(features[17].top[0].words[:3])
    found = features.search(text=shown.upper(), n=1024)
    assert 17 in found["feature"].tolist()
    for feature, examples in zip(found["feature"], found["examples"], strict=True):
        assert sum(shown in join(one.words) for one in features[feature].top) == examples


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "A search is for one of prompt, label, text, direction; got none"),
        ({"label": "sea", "text": "x"}, "got label, text"),
        ({"prompt": "  "}, "The search is empty; say which prompt to look for"),
        ({"text": ""}, "The search is empty"),
        ({"prompt": "Mia"}, "give model="),
        ({"label": "topik"}, "No label or value is called 'topik'; the nearest are 'topic'"),
        ({"direction": torch.zeros(12)}, "A direction has 12 numbers, not all zero"),
        ({"direction": torch.ones(7)}, r"got shape \(7,\)"),
        ({"text": "x", "n": 0}, "n must be at least 1, got 0"),
    ],
)
def test_a_search_that_cannot_be_is_explained(as_user, world, asked, words):
    with pytest.raises(ValueError, match=words):
        world[2].search(**asked)


def test_a_word_outside_the_vocabulary_is_answered_with_the_nearest(tiny):
    model, _, _, features = tiny
    with pytest.raises(ValueError, match=r"'markett' \(word 1 of the text\) is not in the vocabulary.* 'market'"):
        features.search("markett", model=model)


# --- on disk -------------------------------------------------------------------------------------------------


def test_what_is_saved_is_opened_without_being_read_whole(tmp_path, monkeypatch, tiny):
    model, dictionary, store, features = tiny
    features.save(tmp_path)
    monkeypatch.setattr("workbench.dictionaries.files.load_file", lambda file: pytest.fail("all was read"))
    opened = load_features(tmp_path, dictionary=dictionary, store=store)
    assert opened.table.equals(features.table)
    assert (len(opened), repr(opened[17]), repr(opened)) == (1024, repr(features[17]), repr(features))
    assert opened[17].top == features[17].top
    assert opened[17].groups("interval") == features[17].groups("interval")
    assert opened[17].effect(model, n=1).loss == pytest.approx(features[17].effect(model, n=1).loss)
    for name in features.columns:
        assert torch.equal(opened.column(name).nan_to_num(), features.column(name).nan_to_num()), name


def test_what_is_not_features_is_said_so(as_user, tmp_path, tiny):
    features = tiny[3]
    with pytest.raises(ValueError, match=r"holds no features, for it has no features\.json"):
        load_features(tmp_path)
    features.save(tmp_path)
    with pytest.raises(ValueError, match="These are 1024 features, and this dictionary has 64"):
        load_features(tmp_path, dictionary=TopK(128, 64, k=4))
    with pytest.raises(ValueError, match="comes from another model"):
        load_features(tmp_path, store=store_of(torch.zeros(10, 3)))
    with pytest.raises(ValueError, match="give load_features dictionary= and store="):
        load_features(tmp_path)[3].effect(tiny[0])
    (tmp_path / "features.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a manifest of workbench"):
        load_features(tmp_path)


# --- what cannot be ------------------------------------------------------------------------------------------


def test_numbers_outside_and_kinds_of_groups_are_refused(as_user, world):
    features = world[2]
    assert features[-1].number == 11
    for number in (12, -13, 1.5):
        with pytest.raises(IndexError, match="Features are numbered 0 to 11, got"):
            features[number]
    with pytest.raises(ValueError, match='by must be "quantile" or "interval"'):
        features[0].groups("decile")
    with pytest.raises(ValueError, match="Groups are 1 to 20"):
        features[0].groups(n=0)
    for what in ("logits", "loss_effect"):
        with pytest.raises(ValueError, match="described without a model"):
            getattr(features[0], what)


def test_a_dictionary_and_a_store_that_do_not_belong_together_are_refused(as_user, tiny, model_directories):
    _, dictionary, store, _ = tiny
    with pytest.raises(ValueError, match=r"This store has no 0\.mlp_out"):
        describe(TopK(128, 64, k=4, sites_in=Site(0, "mlp_out")), store)
    other = load_model(model_directories["neox"])
    with pytest.raises(ValueError, match="came from another model"):
        describe(dictionary, store, other)
    both = ActivationStore.collect(other, tokens_of(4, 6), [Site(0), Site(1)])
    with pytest.raises(ValueError, match=r"names no site, but the store holds '0\.resid_post', '1\.resid_post'"):
        describe(Given(32), both)
    with pytest.raises(ValueError, match="No feature of this dictionary is active"):
        describe(Given(3), store_of(-torch.ones(10, 3)))


def test_words_of_a_text_are_shown_as_words(world):
    features = world[2]
    hostile = "<script>alert(1)</script>"
    before, features.words = features.words, [hostile] * len(features.words)
    try:
        assert hostile not in features[0]._repr_html_()
        assert "&lt;script&gt;" in features[0]._repr_html_()
    finally:
        features.words = before


def test_other_models_and_long_texts_are_described(model_directories):
    """Texts longer than the context, on an architecture with another norm."""
    model = load_model(model_directories["llama"])
    text = [" ".join(["cat dog bird fish"] * 60), "a cat sees the sun"]
    sites = [Site(1, "mlp_in"), Site(1, "mlp_out")]
    store = ActivationStore.collect(model, text, sites)
    dictionary = TopK(32, 64, k=4, sites_in=sites[0], sites_out=sites[1])
    features = describe(dictionary, store, model)
    number = int(features.column("count").argmax())
    assert features[number].effect(model, n=1).tokens > 0
    assert len(features[number].logits) == 20
    assert BOS not in store.rows(slice(None), ()).tokens
